"""A file of tickets -> a pipeline: what was found in it, and the settings that follow, each with its reason.

Called by `flows/commands/init.py`, which writes the text. `tasks/start/sections.py` has the sections.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from schemas.columns import TicketColumn
from schemas.errors import ConfigError
from tasks.curate.readers.headers import listing, shown
from tasks.start.look import Look, look_at
from tasks.start.roles import Role, Roles, assign_roles
from tasks.start.sizes import Sizes, choose_sizes
from tasks.start.texts import Sampled, read_sample


@dataclass(frozen=True)
class Proposal:
    """Everything that a proposed pipeline follows from."""

    name: str
    path: str
    """The file as pipelines.yaml names it."""
    look: Look
    roles: Roles
    sampled: Sampled
    sizes: Sizes
    has_reply: bool
    routing: Role | None
    """The column whose value an answer begins with; null for none."""

    @property
    def metric(self) -> str:
        """What the gate decides by."""
        return f"field_{self.routing.column}" if self.routing else "chrf"

    @property
    def faulty_share(self) -> float:
        """Share of the file's rows that a run would quarantine, 0-1."""
        unreadable = sum(self.look.unreadable.values()) / self.look.n_rows
        return unreadable + (1 - unreadable) * sum(self.sampled.faults.values()) / max(1, self.sampled.n_read)

    @property
    def split_by_time(self) -> bool:
        return self.roles.of("created_at") is not None


def propose_pipeline(path: Path, *, name: str | None, root: Path) -> Proposal:
    """Look at the file and decide.

    Args:
        path: CSV, JSON lines or Parquet; also .gz and .zst.
        name: Of the pipeline; by the file's name if None.
        root: Folder of the pipelines.yaml to come.

    Raises:
        ConfigError: TG0167, no column is the customer's text, or nothing is there to learn; TG0168, too few tickets.
        DataError: as the readers: the file is absent, damaged, or mixes shapes.
    """
    look = look_at(path)
    _refuse_no_header(look)
    roles = assign_roles(look)
    whole = roles.shape != "ticket"
    _refuse_no_text(look, roles)
    has_reply = whole or roles.of("reply") is not None
    routing = None if roles.shape not in ("ticket", "alpaca") or "messages" in look.top else _routing(roles)
    learns = _learns(has_reply, routing)
    if not learns:
        raise ConfigError(
            "no column holds answers, and none a routing label: there is nothing to learn",
            code="TG0167",
            where=str(path),
            hint=f"columns: {listing(look.top)}; rename the agent's answer to `reply`, or a label to `category`",
        )
    sampled = read_sample(look, roles.source(str(path.absolute())), learns=learns)
    n_readable = look.n_rows - sum(look.unreadable.values())
    n_tickets = n_readable * sampled.n_usable // max(1, sampled.n_read)
    sizes = choose_sizes(
        n_tickets,
        continuous=routing is None,
        example_chars=sampled.example_chars,
        reply_chars=sampled.reply_chars,
        where=str(path),
    )
    return Proposal(
        name=name or pipeline_name(path),
        path=_named_from(path, root),
        look=look,
        roles=roles,
        sampled=sampled,
        sizes=sizes,
        has_reply=has_reply,
        routing=routing,
    )


def pipeline_name(path: Path) -> str:
    """A pipeline's name from a file's.

    >>> pipeline_name(Path("in/Tickets 2026 (Q1).csv.gz")), pipeline_name(Path("2026.csv"))
    ('tickets-2026-q1', 'tickets-2026')
    """
    words = re.sub(r"[^a-z0-9]+", "-", path.name.lower().partition(".")[0]).strip("-")
    return (words if re.match(r"[a-z]", words) else f"tickets-{words}".strip("-"))[:63].rstrip("-")


def _named_from(path: Path, root: Path) -> str:
    whole = path.absolute()
    return whole.relative_to(root).as_posix() if whole.is_relative_to(root) else whole.as_posix()


def _routing(roles: Roles) -> Role | None:
    return roles.of("category") or roles.of("priority")


def _learns(has_reply: bool, routing: Role | None) -> tuple[TicketColumn, ...]:
    replies: tuple[TicketColumn, ...] = ("reply",) if has_reply else ()
    return (*replies, routing.column) if routing else replies


def _refuse_no_header(look: Look) -> None:
    """Names such as an address or a date are a row of data; as keys of pipelines.yaml they would be ticket text."""
    odd = [name for name in look.top if shown(name) != name]
    if 2 * len(odd) > len(look.top):
        raise ConfigError(
            f"the first row does not look like a header: {len(odd)} of {len(look.top)} names are no names",
            code="TG0167",
            where=str(look.path),
            hint="write the columns' names in the first row",
        )


def _refuse_no_text(look: Look, roles: Roles) -> None:
    if roles.shape == "ticket" and roles.of("body") is None:
        raise ConfigError(
            "no column is surely the customer's text",
            code="TG0167",
            where=str(look.path),
            hint=f"columns: {listing(look.top)}; rename the one with the customer's words to `body`",
        )
