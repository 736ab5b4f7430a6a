"""Find a customer's tickets: in results, snapshots, databases, reports, and in models that learned from them.

The index knows what holds rows with the customer's id. What was made from that may hold their texts (a prompt shows
other people's tickets) and is removed too, since after the removal it would be made again in any case. Only reads,
apart from the index.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.ledger.open import open_ledger
from flows.ledger.rows import CandidateRow
from flows.privacy.index import (
    COPIED,
    LANDED,
    SNAPSHOT,
    WAREHOUSE,
    HomeGraph,
    Indexed,
    StoredResult,
    published,
    update_index,
)
from flows.workspace.settings import Settings
from schemas.forget import Fate, Holding, Holdings, LearnedVersion
from tasks.privacy.hashes import Forgotten
from tasks.privacy.results import EXAMPLES, has_answers, is_split, look_up, places_of
from tasks.sources.database_copy import left_by_ended
from tasks.storage.files import files_below

WITHOUT_ROWS = ("base_model", "bundle", "gate", "card")
"""Results that hold weights and figures but no rows."""
PAGES = ("report.html", "report.json", "labels.csv", "labels.jsonl", "items.json")
"""Files of a report that show tickets, or hashes of them."""
LEFTOVERS = ("scratch", "tmp", "damaged")
"""Unfinished work; the owners of its rows are unknown."""
SHOWN_LINES = 20


@dataclass(frozen=True)
class CustomerTrace:
    """What the index has about a customer."""

    rows: dict[tuple[str, str], int]
    """(step, key) -> rows with their id, of existing results."""
    learned: dict[str, int]
    """Key of encoded examples, existing or gone -> the customer's training examples."""


class Tracer:
    """One scan of a workspace; after the first customer, others are cheap to look up."""

    def __init__(self, settings: Settings, forgotten: Forgotten, *, skip_locked: bool = False) -> None:
        self.settings, self.home = settings, settings.home
        self.ledger = open_ledger(settings)
        self.graph = HomeGraph(settings.home, self.ledger)
        self.index = update_index(settings, self.graph, forgotten.hashes, skip_locked=skip_locked)

    def holdings(self, owner: str, forgotten: Forgotten, *, sources: bool = True) -> Holdings:
        """Return everything that is held of one customer.

        Args:
            owner: The tombstone's id.
            forgotten: The customer's hashes.
            sources: Also list their rows in the source.
        """
        found = self.found(sorted(forgotten.owners))
        results = [*self._results(found)]
        held = [
            *results,
            *self._published(found),
            *self._feedback(forgotten),
            *self._reports([each.place for each in results]),
            *(self._sources(found, forgotten) if sources else ()),
        ]
        n_tickets = max(
            (n for (step, _), n in found.rows.items() if step not in (SNAPSHOT, WAREHOUSE, LANDED, COPIED)), default=0
        )
        return Holdings(owner=owner, n_tickets=n_tickets, held=tuple(held), versions=tuple(self.versions(found)))

    def found(self, owners: Sequence[str]) -> CustomerTrace:
        """Look the customer up in the index."""
        rows: dict[tuple[str, str], int] = {}
        learned: dict[str, int] = {}
        for held in look_up(self.index, owners):
            entry = Indexed.of(held.file)
            if held.part == EXAMPLES:
                learned[entry.key] = learned.get(entry.key, 0) + held.n_rows
            else:
                rows[entry.step, entry.key] = rows.get((entry.step, entry.key), 0) + held.n_rows
        return CustomerTrace(rows, learned)

    def versions(self, found: CustomerTrace) -> Iterator[LearnedVersion]:
        """Yield the registered versions that learned from the customer."""
        direct, inherited = self._learned(found)
        for name in self.ledger.model_names():
            champion = self.ledger.current(name)
            for row in reversed(self.ledger.candidates(name)):
                key = _stored_key(row)
                if key in direct or key in inherited:
                    yield LearnedVersion(
                        name=name, version=row.ref.version, run_id=row.ref.run_id,
                        how="directly" if key in direct else "by inheritance",
                        n_rows=direct.get(key, inherited.get(key, 0)),
                        is_champion=champion is not None and champion.version == row.ref.version,
                    )  # fmt: skip

    def _learned(self, found: CustomerTrace) -> tuple[dict[str, int], dict[str, int]]:
        """Return key of a training -> examples of the customer: its own, and those of the trainings that it extends."""
        examples = {
            digest: found.learned[node.key]
            for node in self.graph.nodes
            if node.key in found.learned
            for digest in node.digests
        }
        direct: dict[str, int] = {}
        for node in self.graph.nodes:
            seen = [examples[digest] for digest in node.inputs if digest in examples]
            if seen and self._holds_weights(node):
                direct[node.key] = max(seen)
        inherited: dict[str, int] = {}
        reached = {
            digest: direct[node.key] for node in self.graph.nodes if node.key in direct for digest in node.digests
        }
        grown = True
        while grown:
            grown = False
            for node in self.graph.nodes:
                seen = [reached[digest] for digest in node.inputs if digest in reached]
                if seen and node.key not in direct and node.key not in inherited and self._holds_weights(node):
                    inherited[node.key] = max(seen)
                    reached |= dict.fromkeys(node.digests, max(seen))
                    grown = True
        return direct, inherited

    def _holds_weights(self, node: StoredResult) -> bool:
        """Return whether it is a training or a whole model, by its files; of one that is gone, by its step."""
        if not node.digest:
            return node.step == "train"
        fields = self.graph.reference(node)
        return "n_trainable" in fields or "vocab_size" in fields

    def _results(self, found: CustomerTrace) -> Iterator[Holding]:
        registered = {_stored_key(row) for name in self.ledger.model_names() for row in self.ledger.candidates(name)}
        roots = [node for node in self.graph.present if (node.step, node.key) in found.rows]
        for node in self.graph.made_from(roots):
            if not node.digest or node.step in WITHOUT_ROWS:
                continue
            n_rows = found.rows.get((node.step, node.key), found.learned.get(node.key, 0))
            folder, note = self.graph.path(node), ""
            fate: Fate = "removed"
            if node.key in registered and self._holds_weights(node):
                fate, note = "kept", "weights; the version is marked"
                if has_answers(folder):
                    note = "weights stay, the version is marked; texts written for validation tickets are removed"
                    fate = "rewritten"
            elif is_split(folder):
                fate, note = "rewritten", "all other held-out customers stay held out"
            yield Holding(kind="result", place=node.place, digest=node.digest, n_rows=n_rows, fate=fate, note=note)

    def _published(self, found: CustomerTrace) -> Iterator[Holding]:
        for step, key, place in published(self.home):
            n_rows = found.rows.get((step, key), 0)
            if not n_rows:
                continue
            below = place.relative_to(self.home).as_posix()
            if step == WAREHOUSE:
                yield Holding(kind="warehouse", place=below, n_rows=n_rows, fate="rewritten")
            elif step == LANDED:
                yield Holding(kind="landed", place=below, n_rows=n_rows, fate="rewritten", note="rows and comments")
            elif step == COPIED:
                note = "fetched again by the next run, which leaves these rows out"
                yield Holding(kind="landed", place=below, n_rows=n_rows, fate="removed", note=note)
            else:
                yield Holding(kind="snapshot", place=below, n_rows=n_rows, fate="removed")

    def _feedback(self, forgotten: Forgotten) -> Iterator[Holding]:
        for database in feedback_databases(self.home):
            from tasks.privacy.databases import count_feedback  # imports DuckDB: only where there is any

            n_rows = count_feedback(database, forgotten)
            if n_rows:
                place = database.relative_to(self.home).as_posix()
                yield Holding(kind="feedback", place=place, n_rows=n_rows, fate="rewritten")

    def _reports(self, places: Sequence[str]) -> Iterator[Holding]:
        runs = {run for place in places for run in self.ledger.runs_with(place.rpartition("/")[2])}
        for run in sorted(runs):
            if any((self.home / "reports" / run / page).exists() for page in PAGES):
                note = f"`tunegate report {run}` draws it again from what is left"
                yield Holding(kind="report", place=f"reports/{run}", fate="removed", note=note)

    def _sources(self, found: CustomerTrace, forgotten: Forgotten) -> Iterator[Holding]:
        """Yield the rows of the newest extraction that has any: tunegate reads sources and never changes them."""
        read = [node for node in self.graph.present if node.step == "extract" and (node.step, node.key) in found.rows]
        newest = sorted(read, key=lambda node: self.graph.path(node).stat().st_mtime)[-1:]
        for node in newest:
            lines: dict[str, list[int]] = {}
            for row in places_of(self.graph.path(node) / "tickets.parquet", forgotten):
                lines.setdefault(str(row["source"]), []).append(int(str(row["source_line"])))
            for source, numbers in sorted(lines.items()):
                more = f" and {len(numbers) - SHOWN_LINES:,} more" if len(numbers) > SHOWN_LINES else ""
                note = f"lines {', '.join(map(str, numbers[:SHOWN_LINES]))}{more}: remove them there"
                yield Holding(kind="source", place=source, n_rows=len(numbers), fate="yours", note=note)


def with_tickets(tracer: Tracer, forgotten: Forgotten) -> Forgotten:
    """Add the ids of their tickets, from every result that holds them: the source's ids, and pseudonyms."""
    ids: set[str] = set()
    for step, key in tracer.found(sorted(forgotten.owners)).rows:
        folder = tracer.home / "store" / step / key
        for name in ("tickets.parquet", "train.parquet", "validation.parquet", "test.parquet", "items.parquet"):
            if (folder / name).is_file():
                ids |= {str(row["ticket_id"]) for row in places_of(folder / name, forgotten)}
    tickets = [forgotten.hashes.of("ticket", each) for each in ids]
    return Forgotten(forgotten.hashes, owners=forgotten.owners, tickets=tickets, names=forgotten.names)


def leftovers(home: Path) -> list[Holding]:
    """Return the folders of unfinished work that are not empty."""
    note = "unfinished work; whose rows it holds is unknown"
    return [
        *(
            Holding(kind="landed", place=file.relative_to(home).as_posix(), fate="removed", note=note)
            for folder in sorted((home / "ingest").glob("*/*"))
            for file in left_by_ended(folder)
        ),
        *(
            Holding(kind="result", place=name, fate="removed", note=note)
            for name in LEFTOVERS
            if any(path.is_file() and path.suffix != ".lock" for path in files_below(home / name))
        ),
    ]


def feedback_databases(home: Path) -> list[Path]:
    """Return the databases of all collected feedback."""
    return [file for file in sorted((home / "feedback").glob("*/feedback.duckdb")) if file.stat().st_size]


def _stored_key(row: CandidateRow) -> str:
    return row.ref.trained.root.name
