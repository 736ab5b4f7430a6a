"""The logins of the local servers: created at each start, kept in a file of this user, handed to clients.

Without one any user of the machine could call the servers: start flows and approve runs with Prefect, read and write
this user's files through MLflow.

Prefect's pages ask for the login in a form and keep it in the browser (`localStorage`, the key `prefect-password`); the
page written here, which Prefect serves next to its own, puts it there from the part of the address after `#`. A browser
sends that part to no server, so it appears in no log.
"""

import secrets
from pathlib import Path

from flows.workspace.disk import write_private
from schemas.secrets import know_secret

USER = "tunegate"
_PAGE = "login.html"
_HTML = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="referrer" content="no-referrer">
<title>Logging in</title>
<script>
  const login = decodeURIComponent(location.hash.slice(1));
  if (login) localStorage.setItem("prefect-password", btoa(login));
  location.replace("/");  // not assign: the address with the login leaves the history
</script>
</html>
"""


def login_file(folder: Path) -> Path:
    """Return the file that holds the login of the server in this folder, as `user:password`."""
    return folder / "login"


def make_login(folder: Path) -> str:
    """Create the login for a server that is about to start; it replaces the last one."""
    login = f"{USER}:{secrets.token_urlsafe(32)}"
    write_private(login_file(folder), login)
    return login


def read_login(folder: Path) -> str | None:
    """Return the login of the server in this folder, and keep it out of logs; None when it has none."""
    try:
        login = login_file(folder).read_text()
    except OSError:
        return None
    know_secret(login, shown=f"(login of the local {folder.name} server)")
    return login or None


def pages_of(folder: Path) -> Path:
    """Return our folder that Prefect copies its pages to (PREFECT_SERVER_UI_STATIC_DIRECTORY)."""
    return folder / "pages"


def write_login_page(folder: Path) -> None:
    """Add the page that logs a browser in to Prefect's own, which the server copies when it starts."""
    served = pages_of(folder) / "v1"
    if served.is_dir():  # absent where PREFECT_SERVER_UI_ENABLED is false
        write_private(served / _PAGE, _HTML)


def login_url(url: str, folder: Path) -> str:
    """Return the address that opens the server's pages and logs the browser in; `url` where no page does that."""
    login = read_login(folder)
    served = (pages_of(folder) / "v1" / _PAGE).is_file()
    return f"{url}/{_PAGE}#{login}" if login is not None and served else url
