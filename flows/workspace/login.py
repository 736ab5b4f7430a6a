"""The logins of the local servers: created at each start, kept in a file of this user, handed to clients.

Without one any user of the machine could call the servers: start flows and approve runs with Prefect, read and write
this user's files through MLflow. Called by `flows/workspace/servers.py`.
"""

import secrets
from pathlib import Path

from flows.workspace.disk import write_private
from schemas.secrets import know_secret

USER = "tunegate"


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
