"""What of a pipeline's tickets people should look at, and their answers as lines of `curate.corrections`.

The file of corrections is the only thing that changes: the next run applies it.
"""

import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import tasks.curate.steps  # noqa: F401  registers the kinds of steps
from flows.graph.store import Store
from flows.ledger.ledger import Ledger
from flows.workspace.clock import now
from schemas.artifacts import ChampionRef, DatasetRef
from schemas.corrections import CORRECTED_FIELDS, Correction
from schemas.curation_steps import RedactStep
from schemas.errors import ConfigError
from schemas.names import closest
from schemas.pipeline import DataPipeline, PipelineSpec
from schemas.template import template_columns
from tasks.curate.corrections import (
    contradictions,
    corrections_file,
    corrections_text,
    describe_pair,
    plain_value,
    read_corrections,
)
from tasks.curate.redaction.pseudonyms import Pseudonyms, load_pseudonyms, pseudonyms_step
from tasks.curate.review_rows import (
    HINT,
    ExampleLosses,
    ReviewAnswer,
    ReviewRow,
    find_review_rows,
    known_tickets,
    known_values,
    named_value,
    old_values,
    redacted_value,
)
from tasks.curate.step import rules_of
from tasks.curate.warehouse_query import query_rows
from tasks.model.example_losses import example_losses
from tasks.privacy.databases import has_raw_texts
from tasks.progress import Progress, silent
from tasks.storage.files import inside, write_atomic
from tasks.tickets.answer_files import CODE

DECISIONS = ("change", "right", "drop")


@dataclass(frozen=True)
class Review:
    """The rows worth a look of one pipeline, and what has been decided of others."""

    spec: DataPipeline
    root: Path
    """Folder of pipelines.yaml."""
    database: Path

    @property
    def redactions(self) -> tuple[RedactStep, ...]:
        """How a text is redacted before a person sees it: as the pipeline does, then by the default settings."""
        mine = tuple(step for step in self.spec.curate.steps if isinstance(step, RedactStep))
        return (*mine, RedactStep(uses="redact"))

    @property
    def pseudonyms(self) -> Pseudonyms | None:
        step = pseudonyms_step(self.spec.curate.steps)
        return None if step is None else load_pseudonyms(step)

    def decided(self) -> tuple[Correction, ...]:
        """Return the corrections that the file has; none if it is not declared or not there yet."""
        path = self.spec.curate.corrections
        if path is None or not inside(path, self.root, where="curate.corrections").exists():
            return ()
        return read_corrections(corrections_file(path, self.root))

    def rows(self, *, limit: int, losses: ExampleLosses | None = None) -> tuple[list[ReviewRow], dict[str, int]]:
        """Return what is left to look at, most useful first, and how many rows there are of each kind."""
        stale = {
            (row["ticket_id"], row["field"])
            for row in query_rows(self.database, "SELECT ticket_id, field FROM corrections WHERE state = 'stale'")
        }
        done: dict[str, list[Correction]] = {}
        for each in self.decided():
            if each.do != "set" or (each.ticket_id, each.field) not in stale:
                done.setdefault(each.ticket_id, []).append(each)

        def is_done(id_: str, field: str, rule: str) -> bool:
            return any(
                each.do == "drop" or (each.field == field and bool(field)) or (each.rule == rule and bool(rule))
                for each in done.get(id_, ())
            )

        return find_review_rows(
            self.database, redactions=self.redactions, table=self.spec.table, pseudonyms=self.pseudonyms,
            is_done=is_done, limit=limit, losses=losses,
        )  # fmt: skip

    @property
    def file(self) -> Path:
        """Where decisions are kept.

        Raises:
            ConfigError: TG0159, no file is declared.
        """
        path = self.spec.curate.corrections
        if path is None:
            raise ConfigError(
                f"{self.spec.name} has no file of corrections", code="TG0159", where=f"{self.spec.name}.curate",
                hint=f"add `corrections: corrections/{self.spec.name}.jsonl` to `curate`",
            )  # fmt: skip
        return inside(path, self.root, where="curate.corrections")

    def keep(self, answers: Iterable[ReviewAnswer], *, where: str) -> list[Correction]:
        """Add the answers to the file of corrections, all or none; return them.

        A person's newer answer replaces their older one.

        Args:
            where: The file of the answers, for messages.

        Raises:
            ConfigError: TG0164, an answer is not allowed, or contradicts one of another person; TG0159, no file is
                declared; TG0127, the file of corrections is damaged.
        """
        file = self.file
        made = self._made(list(answers), where)
        file.parent.mkdir(parents=True, exist_ok=True)
        with _alone_in(file.parent):
            write_atomic(file, corrections_text(_merged(self.decided(), made, where)))
        return made

    def _made(self, answers: Sequence[ReviewAnswer], where: str) -> list[Correction]:
        ids = [each.ticket_id for each in answers]
        known = known_tickets(self.database, ids, self.pseudonyms)
        unsaid = [(each.ticket_id, each.field) for each in answers if each.old is None and each.field]
        olds = old_values(self.database, unsaid, self.redactions)
        checker = _Checker(self, where, known, olds, knows_replies=has_raw_texts(self.database))
        return [checker.correction(each) for each in answers]


@dataclass(frozen=True)
class LossSource:
    """The newest candidate of a pipeline, and the examples that it learned."""

    spec: PipelineSpec
    candidate: ChampionRef
    dataset: DatasetRef

    def measure(self, *, progress: Progress = silent) -> ExampleLosses:
        """Compute the loss of each train example; raises as `tasks.model.example_losses.example_losses`."""
        made_of = template_columns(self.candidate.prompt.answer)
        nats = example_losses(
            self.dataset, model=self.candidate.model, trained=self.candidate.trained, dtype=self.spec.train.dtype,
            progress=progress,
        )  # fmt: skip
        field = made_of[0] if len(made_of) == 1 and made_of[0] in CORRECTED_FIELDS else ""
        return ExampleLosses(nats, field, self.candidate.run_id)


def loss_source(spec: DataPipeline, ledger: Ledger, store: Store) -> LossSource:
    """Return what losses are computed from.

    Raises:
        ConfigError: TG0159, nothing was trained, or it is no longer in the store.
    """
    if not isinstance(spec, PipelineSpec):
        raise _no_losses(spec, "trains nothing, so no example has a loss")
    row = next(iter(ledger.candidates(spec.registry.name)), None)
    if row is None:
        raise _no_losses(spec, "has no candidate yet, so no example has a loss")
    keys = ledger.keys_of(row.ref.run_id)
    dataset = store.whole("encode", keys.get("chosen_dataset") or keys.get("encode"), DatasetRef)
    if dataset is None or not all(part.root.is_dir() for part in (row.ref.model, row.ref.trained)):
        raise _no_losses(spec, f"no longer has the weights or the examples of run {row.ref.run_id} in the store")
    return LossSource(spec, row.ref, dataset)


def _no_losses(spec: DataPipeline, why: str) -> ConfigError:
    hint = f"without --by-loss, or after `tunegate run {spec.name}`"
    return ConfigError(f"{spec.name} {why}", code="TG0159", where="--by-loss", hint=hint)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Within the block no other process keeps decisions there; those of two people would overwrite each other."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _merged(before: Iterable[Correction], made: Sequence[Correction], where: str) -> list[Correction]:
    """The corrections with the new ones; those of the same person, and of a value that is no longer there, go."""
    found = list(made)
    for one, other in contradictions(made):
        raise ConfigError(
            f"two people contradict each other: {describe_pair(made[one], made[other])}", code=CODE, where=where,
            hint="agree, and keep one answer",
        )  # fmt: skip
    by_ticket: dict[str, list[Correction]] = {}
    for each in made:
        by_ticket.setdefault(each.ticket_id, []).append(each)
    for old in before:
        stays = True
        for new in by_ticket.get(old.ticket_id, ()):
            clashes = any(contradictions([old, new]))
            if clashes and old.by != new.by:
                raise ConfigError(
                    f"this contradicts an earlier correction: {describe_pair(old, new)}", code=CODE, where=where,
                    hint="agree; then take the line out of the file of corrections, or out of this one",
                )  # fmt: skip
            # The same decision is kept as it was first made.
            stays = stays and not clashes and old.about != new.about
            if old.about == new.about and old.says == new.says and old.old == new.old and old.by == new.by:
                if new in found:  # a merge of two branches may bring one decision twice
                    found.remove(new)
                stays = True
        if stays:
            found.append(old)
    return found


@dataclass(frozen=True)
class _Checker:
    """Turns answers into corrections, or says why one cannot be one."""

    review: Review
    where: str
    known: set[str]
    olds: Mapping[tuple[str, str], str | None]
    knows_replies: bool
    """False once the texts as they were read are removed (`keep_raw_days`)."""

    def correction(self, each: ReviewAnswer) -> Correction:
        if each.ticket_id not in self.known:
            raise self._fault(each, f"no ticket {each.ticket_id!r}", "keep the column ticket_id as text: spreadsheets "
                              "drop leading zeros")  # fmt: skip
        shared = {
            "ticket_id": each.ticket_id, "by": each.by, "at": now(),
            "why": redacted_value(each.why, self.review.redactions),
        }  # fmt: skip
        match each.decision:
            case "drop":
                return Correction(do="drop", **shared)
            case "right":
                return Correction(do="keep", rule=self._rule(each), **shared)
            case "change":
                new = self._new(each)
                return Correction(do="set", field=each.field, old=self._old(each), new=new, **shared)
        raise self._fault(each, f"{each.decision[:20]!r} is no decision", f"allowed: {', '.join(DECISIONS)}")

    def _rule(self, each: ReviewAnswer) -> str:
        rules = rules_of(self.review.spec.curate.steps)
        if each.rule in rules:
            return each.rule
        if not each.rule:
            raise self._fault(each, "no rule found this row, so nothing keeps it as it is",
                              "change the value, or drop the ticket")  # fmt: skip
        raise self._fault(each, f"no rule {each.rule!r}", f"allowed: {', '.join(rules) or 'none: no step has one'}")

    def _old(self, each: ReviewAnswer) -> str | None:
        if each.old is not None:
            return each.old
        return self.olds.get((each.ticket_id, each.field))

    def _new(self, each: ReviewAnswer) -> str:
        if each.field not in CORRECTED_FIELDS:
            what = f"no field {each.field!r}" if each.field else "no field to change"
            raise self._fault(each, what, f"allowed: {', '.join(CORRECTED_FIELDS)}; or drop the ticket")
        new = plain_value(each.new or each.proposed)
        if new is None:
            raise self._fault(each, "nothing is proposed, and `new` is empty", "write the right value into `new`")
        if redacted_value(new, self.review.redactions) != new:
            raise self._fault(each, "the new value holds personal data", "write a placeholder such as [EMAIL_1]")
        if each.field == "reply":
            if each.old is None and not self.knows_replies:
                raise self._fault(each, "the reply as it was read is no longer kept (curate.keep_raw_days)",
                                  "curate again, then write the review anew")  # fmt: skip
            return new
        table = self.review.spec.table
        declared = {"category": table.categories, "priority": table.priorities}.get(each.field, ())
        allowed = list(declared) or known_values(self.review.database, each.field)
        if new not in allowed:
            raise self._fault(each, f"{new[:40]!r} is no {each.field}", closest(new, allowed))
        if named_value(new, each.field, self.review.redactions) == self._old(each):
            raise self._fault(each, "the new value is the old one", "`right` says that it is right")
        return new

    def _fault(self, each: ReviewAnswer, what: str, hint: str | None) -> ConfigError:
        return ConfigError(f"row {each.number}: {what}", code=CODE, where=self.where, hint=hint or HINT)
