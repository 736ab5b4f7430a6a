"""`python -m infra.stack up | status | env | backup FOLDER | restore FOLDER | down` (`make stack` is `up`).

For a supervisor: `run SERVICE` becomes one of them, `wait SERVICE` waits for one, `user` makes MLflow's user.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from infra.stack.backup import backup, restore
from infra.stack.place import Place
from infra.stack.postgres import PostgresError
from infra.stack.processes import ORDER, down, make_user, run_one, status, up, wait_for
from infra.stack.services import StackError
from schemas.errors import TunegateError


def main() -> int:
    """Exit code 0, 1 when something does not work, or that of the error."""
    parser = argparse.ArgumentParser(prog="python -m infra.stack", description=__doc__)
    parser.add_argument("command", choices=("up", "status", "env", "backup", "restore", "down", "run", "wait", "user"))
    parser.add_argument("what", nargs="?", default="", help="the folder of a backup, or a service")
    parser.add_argument("--config", "-c", type=Path, default=Path("pipelines.yaml"))
    asked = parser.parse_args()
    if asked.command in ("backup", "restore") and not asked.what:
        parser.error(f"{asked.command} needs a folder")
    if asked.command in ("run", "wait") and asked.what not in ORDER:
        parser.error(f"{asked.command} needs one of {', '.join(ORDER)}")
    place = Place(asked.config)
    try:
        return _do(asked.command, place, asked.what)
    except (StackError, PostgresError) as error:
        print(f"error: {error}", file=sys.stderr)
    except TunegateError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 1


def _do(command: str, place: Place, what: str) -> int:
    if command == "up":
        up(place, tell=print)
        print(f'\nto use it: eval "$(python -m infra.stack env)"   {place.folder}')
    elif command == "down":
        down(place, tell=print)
    elif command == "status":
        states = status(place)
        for name, state in states.items():
            print(f"{name:<9} {state}")
        return int(any(state != "works" for state in states.values()))
    elif command == "env":
        for name, value in place.client().items():
            print(f"export {name}={shlex.quote(value)}")
    elif command == "user":
        wait_for(place, "mlflow")
        make_user(place)
    elif command == "wait":
        wait_for(place, what)
    elif command == "run":
        run_one(place, what)
    else:
        done = backup(place, Path(what)) if command == "backup" else restore(Path(what), place, tell=lambda _line: None)
        for name, digest in done.items():
            print(f"{name:<12} {digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
