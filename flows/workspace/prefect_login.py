"""The page that logs a browser in to the local Prefect server (`flows/workspace/login.py` has the login).

Prefect's pages ask for it in a form and keep it in the browser (`localStorage`, the key `prefect-password`); the page
written here, which Prefect serves next to its own, puts it there from the part of the address after `#`. A browser
sends that part to no server, so it appears in no log. Called by `flows/workspace/servers.py`.
"""

from pathlib import Path

from flows.workspace.disk import write_private
from flows.workspace.login import read_login

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
