"""`python -m infra.stack up | status | env | backup FOLDER | restore FOLDER | down` (`make stack` is `up`)."""

import argparse
import shlex
import sys
from pathlib import Path

from infra.stack.backup import backup, restore
from infra.stack.place import StackPlace
from infra.stack.postgres import PostgresError
from infra.stack.services import StackError, down, status, up
from schemas.errors import TunegateError


def main() -> int:
    """Return exit code 0, 1 if something does not work, or that of the error."""
    parser = argparse.ArgumentParser(prog="python -m infra.stack", description=__doc__)
    parser.add_argument("command", choices=("up", "status", "env", "backup", "restore", "down"))
    parser.add_argument("folder", nargs="?", type=Path, help="of a backup")
    parser.add_argument("--config", "-c", type=Path, default=Path("pipelines.yaml"))
    given = parser.parse_args()
    if given.command in ("backup", "restore") and given.folder is None:
        parser.error(f"{given.command} needs a folder")
    try:
        return _run(given.command, StackPlace(given.config), given.folder)
    except (StackError, PostgresError) as error:
        print(f"error: {error}", file=sys.stderr)
    except TunegateError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 1


def _run(command: str, place: StackPlace, folder: Path) -> int:
    if command == "up":
        up(place, report=print)
        print(f'\nto use it: eval "$(python -m infra.stack env)"   {place.folder}')
    elif command == "down":
        down(place, report=print)
    elif command == "status":
        states = status(place)
        for name, state in states.items():
            print(f"{name:<9} {state}")
        return int(any(state != "works" for state in states.values()))
    elif command == "env":
        for name, value in place.client().items():
            print(f"export {name}={shlex.quote(value)}")
    else:
        digests = backup(place, folder) if command == "backup" else restore(folder, place)
        for name, digest in digests.items():
            print(f"{name:<12} {digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
