"""The files of one commit, for what compares the present ones with them: `plan --against`, `gate check --against`."""

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

from schemas.errors import ConfigError

GIT = {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "GIT_NO_LAZY_FETCH": "1", "LC_ALL": "C"}
"""Read only, and without the network."""


class Commit:
    """The files of one commit below a folder."""

    def __init__(self, folder: Path, commit: str) -> None:
        """
        Raises:
            ConfigError: TG0159, there is no git, no repository or no such commit.
        """
        self._folder, self._asked = folder, commit
        wanted = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{commit}^{{commit}}")
        self.commit = self._git(*wanted).decode().strip()
        listed = self._git("ls-tree", "-r", "-z", "--name-only", self.commit).decode("utf-8", "surrogateescape")
        self.names = frozenset(name for name in listed.split("\0") if name)
        """Paths from the folder."""

    def write(self, names: Iterable[str], folder: Path) -> None:
        """Write these files below another folder."""
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(self._git("cat-file", "blob", f"{self.commit}:./{name}"))

    def _git(self, *words: str) -> bytes:
        try:
            done = subprocess.run(
                ["git", *words], cwd=self._folder, env={**os.environ, **GIT}, capture_output=True, check=True
            )
        except (OSError, subprocess.CalledProcessError) as error:
            said = error.stderr.decode("utf-8", "replace").strip() if hasattr(error, "stderr") else str(error)
            why = said.partition("\n")[0].removeprefix("fatal: ") or "git has no such commit"
            raise ConfigError(
                f"{self._asked!r} cannot be read from git: {why}", code="TG0159", where="--against",
                hint="name a commit, a branch or a tag of the repository; a shallow clone has the newest commit alone",
            ) from None  # fmt: skip
        return done.stdout


def in_repository(folder: Path) -> bool:
    """Whether the folder is in the work tree of a repository."""
    words = ["git", "rev-parse", "--is-inside-work-tree"]
    try:
        done = subprocess.run(words, cwd=folder, env={**os.environ, **GIT}, capture_output=True, check=False)
    except OSError:
        return False
    return done.stdout.strip() == b"true"
