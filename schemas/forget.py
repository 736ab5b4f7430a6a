"""Records about a forgotten customer, and the places of their tickets.

A keyed hash identifies the customer, never the id in plain text.
"""

from typing import Literal

from pydantic import Field

from schemas.spec import Frozen

Fate = Literal["removed", "rewritten", "kept", "yours"]
"""removed: deleted. rewritten: kept without the rows. kept: weights, which are marked. yours: outside the workspace, to
be removed by the user."""


class Tombstone(Frozen):
    """A customer, by keyed hash, whose rows are never read again."""

    id: str
    """HMAC of the customer's id as the source writes it."""
    key_id: str
    """Identifies the key without revealing it."""
    owners: tuple[str, ...]
    """HMACs of the customer's ids in tables: the source's id, and its pseudonyms."""
    tickets: tuple[str, ...] = ()
    """HMACs of the ids of their tickets, as in the source and as pseudonyms."""
    reason: str
    actor: str
    at: str
    """UTC, ISO 8601."""


class Holding(Frozen):
    """A place with rows of the customer, or a result made from them."""

    kind: Literal["result", "snapshot", "warehouse", "feedback", "report", "landed", "source"]
    place: str
    """Path below the home folder; for a source, its file and first lines."""
    digest: str = ""
    n_rows: int = Field(default=0, ge=0)
    """Rows of the customer; 0 for a result made from such rows that has none with their id."""
    fate: Fate
    note: str = ""
    """What happens to it."""


class LearnedVersion(Frozen):
    """A registered model version that learned from tickets of the customer."""

    name: str
    version: str
    run_id: str
    how: Literal["directly", "by inheritance"]
    n_rows: int
    """Examples of the customer in its training; for an inheriting version, in its parent's."""
    is_champion: bool = False


class Holdings(Frozen):
    """Everything about a customer in one workspace."""

    owner: str
    """The tombstone's id."""
    n_tickets: int
    """Rows of the customer in the newest extractions."""
    held: tuple[Holding, ...]
    versions: tuple[LearnedVersion, ...]

    @property
    def to_do(self) -> tuple[Holding, ...]:
        """What must be removed from the workspace."""
        return tuple(each for each in self.held if each.fate in ("removed", "rewritten"))


class Removal(Frozen):
    """One line of a certificate."""

    kind: str
    place: str
    fate: str
    digest: str
    n_rows: int
    at: str


class ForgetCertificate(Frozen):
    """Proof of what was removed, by digest and count."""

    customer: str
    """The tombstone's id. Only with the key and the customer's id can one check who it is."""
    key_id: str
    began: str
    ended: str
    reason: str
    by: str
    removals: tuple[Removal, ...]
    n_rows: int
    """Removed rows with the customer's id in all tables: a ticket counts once in each."""
    versions: tuple[LearnedVersion, ...]
    sources: tuple[str, ...]
    """What the user must remove, since it is outside the workspace."""
