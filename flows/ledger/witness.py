"""The witness: which ledger belongs to a home folder, and its last known line, kept outside that folder.

A ledger that was removed, restored to an earlier state, exchanged or forged from its first line contradicts the
witness, whatever it says itself. It is one small file per home folder in the user's state folder; MLflow's tags are
another (`flows/registry/owner.py`). `flows/ledger/base.py` checks it whenever the ledger is opened, and updates
it after each change.
"""

import hashlib
import logging
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from flows.ledger.database import Database
from flows.ledger.journal import identity, last_line
from flows.workspace.clock import now
from flows.workspace.disk import private_folder
from flows.workspace.lock import hold
from schemas.errors import StorageError
from tasks.storage.files import write_json

log = logging.getLogger("tunegate.ledger")

ACCEPT_HINT = (
    "if this is intended: `tunegate run PIPELINE --accept-ledger --reason TEXT`, which is recorded in the history"
)
NEW_LEDGER_HINT = (
    "restore it from a backup, or copy it with `tunegate ops migrate --ledger-to`; to start without champion and"
    " history: `tunegate run PIPELINE --new-ledger --reason TEXT`"
)


class WitnessState(BaseModel):
    """The state that the witness saw last."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: str
    ledger: str
    """The ledger's identity."""
    seq: int
    """Of the journal's last line."""
    hash: str
    following: str = ""
    """Identity of the ledger that replaces it, until its first commit was seen."""
    mark: str = ""
    """Of the last state of which every row was checked, see `LedgerFile.mark`."""


class Witness:
    """`Witness(state, home)`; creating the object touches nothing."""

    def __init__(self, state: Path, home: Path) -> None:
        self.home = home.absolute()
        name = hashlib.sha256(str(self.home.resolve()).encode()).hexdigest()[:20]
        self.path = state / "ledgers" / f"{name}.json"

    def seen(self) -> WitnessState | None:
        """Return what was seen last; None when this home has no witness yet.

        Raises:
            StorageError: TG0581, the file cannot be read.
        """
        try:
            return WitnessState.model_validate_json(self.path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValidationError) as error:
            raise _refused(f"the witness of this ledger cannot be read ({type(error).__name__})", ACCEPT_HINT) from None

    def last_seen_json(self) -> str:
        """Return what was seen last as JSON; empty if there is nothing or it cannot be read."""
        try:
            seen = self.seen()
        except StorageError:
            return ""
        return "" if seen is None else seen.model_dump_json()

    def unfinished(self) -> WitnessState | None:
        """Return what was seen of the old ledger, if a new one was begun and its first commit was not seen."""
        seen = self.seen()
        return seen if seen is not None and seen.following else None

    def refuse_absent(self, place: str) -> None:
        """Refuse to create a ledger where there was one.

        Raises:
            StorageError: TG0581.
        """
        seen = self.seen()
        if seen is not None:
            raise _refused(
                f"there is no ledger at {place}, and this home had one with {seen.seq} entries ({seen.ledger})",
                NEW_LEDGER_HINT,
            )

    def check(self, db: Database, seen: WitnessState | None) -> None:
        """Compare the open ledger with what was seen before it was opened.

        Raises:
            StorageError: TG0581, it is another ledger, an earlier state of the same, or was rewritten.
        """
        if seen is None:
            return
        this = identity(db)
        if seen.following and this in (None, seen.following):
            return  # `start_over` was killed before or after its commit
        if this is None:
            raise _refused(
                f"the ledger is empty, and this home had one with {seen.seq} entries ({seen.ledger})", NEW_LEDGER_HINT
            )
        if this != seen.ledger:
            raise _refused(f"this is ledger {this}, and this home belongs to ledger {seen.ledger}", ACCEPT_HINT)
        row = db.execute("SELECT hash FROM journal WHERE seq = ?", (seen.seq,)).fetchone()
        if row is None:
            raise _refused(
                f"the ledger has {last_line(db)[0]} entries and had {seen.seq}: it was restored to an earlier state",
                ACCEPT_HINT,
            )
        if row["hash"] != seen.hash:
            raise _refused(f"entry {seen.seq} of the ledger is not the one that was written", ACCEPT_HINT)

    def start_over(self, db: Database, seen: WitnessState) -> None:
        """Begin a new ledger after the whole home folder was removed; it records that there was another one before it.

        The witness knows the new one before it is committed: after a kill in between, the next process continues.
        """
        log.warning("this home folder had a ledger with %s entries, and is empty: a new one begins", seen.seq)
        this, at = seen.following or secrets.token_hex(8), now()
        db.execute("INSERT INTO identity (id, created_at) VALUES (?, ?)", (this, at))
        db.execute(
            "INSERT INTO acceptances (kind, reason, actor, former, at) VALUES ('new', ?, 'tunegate', ?, ?)",
            ("the home folder was removed", seen.model_dump_json(), at),
        )
        self._write(seen.model_copy(update={"following": this}))

    def move(self, read: Callable[[], tuple[str | None, int, str]], *, mark: str = "", back: bool = False) -> None:
        """Record the ledger's last line; it moves back only when a person accepts that.

        A state folder that cannot be written only causes a warning: the ledger itself is intact.

        Args:
            read: Returns identity, number and hash of the last committed line.
            mark: Of the state up to there, of which every row was checked.
        """
        try:
            with hold(private_folder(self.path.parent) / f"{self.path.stem}.lock"):
                this, seq, hash_ = read()
                seen = None if back else self.seen()
                is_next = seen is not None and seen.following == this
                if this is None or (seen is not None and not is_next and (seen.ledger != this or seen.seq >= seq)):
                    return
                self._write(WitnessState(home=str(self.home), ledger=this, seq=seq, hash=hash_, mark=mark))
        except OSError as error:
            log.warning("no witness of the ledger can be kept in %s (%s): set XDG_STATE_HOME", self.path.parent, error)

    def note_mark(self, ledger: str | None, mark: str) -> None:
        """Record that every row of this state was checked. Readers call it, so it makes no witness and never fails."""
        with suppress(OSError, StorageError):
            if not self.path.exists():
                return
            with hold(self.path.with_suffix(".lock")):
                seen = self.seen()
                if seen is not None and seen.ledger == ledger:
                    self._write(seen.model_copy(update={"mark": mark}))

    def _write(self, seen: WitnessState) -> None:
        write_json(self.path, seen.model_dump())
        self.path.chmod(0o600)


def _refused(what: str, hint: str) -> StorageError:
    return StorageError(what, code="TG0581", where="ledger", hint=hint)
