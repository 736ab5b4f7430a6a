"""The sections `schema`, `curate` and `split`: how tickets become examples.

The kinds of `curate.steps` are in `schemas/curation_steps.py`.
"""

import re
from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from schemas.curation_steps import CurateStep, DedupStep, NamedStepSpec, RedactStep, RuleStep
from schemas.spec import Conflict, Spec, UnfitError
from schemas.tables import SCORES_OF, TicketColumn

Fraction = Annotated[float, Field(ge=0, le=1)]
Model = Annotated[str, Field(pattern=r"^[A-Za-z_][\w/]*\.py:[A-Za-z_]\w*$")]
"""`checks.py:Tickets`: a pandera model in a Python file next to pipelines.yaml."""
_QUOTED = re.compile(r"'[^']*'")
_WORD = re.compile(r"[A-Za-z_]\w*")


class TableSpec(Spec):
    """`schema`: what a valid ticket is, and how many invalid ones are tolerated."""

    required: tuple[TicketColumn, ...] = ("ticket_id", "body")
    """Columns that may not be null; a row without one is quarantined."""
    max_chars: int = Field(default=20_000, ge=1)
    """Longest text of one field, characters; longer rows are quarantined."""
    on_conflicting_id: Literal["newest", "quarantine"] = "newest"
    """Rows that share a ticket_id but differ: keep the newest by updated_at, or quarantine all of them."""
    categories: tuple[str, ...] = ()
    """Allowed values of `category`; empty allows any."""
    priorities: tuple[str, ...] = ()
    """Allowed values of `priority`; empty allows any."""
    model: Model | None = None
    """A pandera model for the tickets as they are read, `checks.py:Tickets`; a row that breaks it is quarantined."""
    curated: Model | None = None
    """A pandera model for the tickets after the last step of `curate`; a row that breaks it is quarantined."""
    warn_above: Fraction = 0.005
    """Quarantined fraction of the rows read, after `validate`, over which the run warns."""
    fail_above: Fraction = 0.05
    """Quarantined fraction of the rows read, over which the run ends with a data error; faulty rows of all steps count,
    suspect ones (`trigger_scan`) do not."""


class DecontaminateSpec(Spec):
    """Remove train rows that leak test or validation rows, and validation rows that leak test rows."""

    near_threshold: float = Field(default=0.7, gt=0, le=1)
    """Word-shingle Jaccard with a held-out question from which a train row is a leak."""
    long_ngram_words: int = Field(default=8, ge=2, le=30)
    """Words of a long n-gram."""
    long_threshold: float = Field(default=0.2, gt=0, le=1)
    """Rarity-weighted share of a held-out question's long n-grams in a train row from which it is a leak: a quote."""
    short_ngram_words: int = Field(default=3, ge=1, le=30)
    """Words of a short n-gram."""
    short_threshold: float = Field(default=0.2, gt=0, le=1)
    """The same of short n-grams in at least four separate pieces, or of runs of five words whose middle one may differ
    (then 0.25 at least) in two: a paraphrase. Also judges short questions word by word; above 0.2 more strictly."""
    max_document_frequency: int = Field(default=50, ge=1)
    """n-grams in more train rows than this are boilerplate and do not count."""
    max_document_share: float = Field(default=0.002, gt=0, le=1)
    """n-grams in a larger share of the train rows (and in more than five) are boilerplate too: small sets."""

    @model_validator(mode="after")
    def _long_is_longer(self) -> Self:
        if self.long_ngram_words <= self.short_ngram_words:
            raise ValueError("long_ngram_words must be more than short_ngram_words")
        return self


class CurateSpec(Spec):
    """`curate`: the ordered steps between a valid ticket and the split, and decontamination after it."""

    steps: tuple[CurateStep, ...] = ()
    """The steps, in the order in which they run; each names its kind under `uses`."""
    decontaminate: DecontaminateSpec = DecontaminateSpec()
    corrections: str | None = Field(default=None, pattern=r"\.jsonl$")
    """Path of a file of people's corrections, relative to pipelines.yaml and kept in git; `tunegate data review` writes
    it. They are applied before tickets are validated."""
    keep_raw_days: int | None = Field(default=None, ge=0)
    """Days after which the unredacted texts are removed from the state folder; null keeps them."""

    @model_validator(mode="after")
    def _order_is_right(self) -> Self:
        faults = _order_faults(self.steps)
        if self.keep_raw_days is not None and not any(step.uses == "redact" for step in self.steps):
            hint = "add `- uses: redact`; without it every later table holds the unredacted texts"
            faults.append(Conflict("`keep_raw_days` needs a step `redact`", at=("keep_raw_days",), hint=hint))
        if faults:
            raise UnfitError(faults)
        return self


class SplitSpec(Spec):
    """`split`: train / validation / test by time and customer; a customer or thread never straddles."""

    test_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Newest share of the tickets that becomes the held-out window (by hash of the group when there is no time)."""
    validation_fraction: float = Field(default=0.05, ge=0, lt=1)
    """Share of the tickets for validation."""
    by_time: bool = True
    """Held-out strictly later than train; needs created_at."""
    group_by: tuple[Literal["customer_id", "thread_id"], ...] = ("customer_id", "thread_id")
    """Columns whose equal values stay on one side of the split."""
    straddlers: Literal["balance", "keep_early", "keep_late"] = "balance"
    """Customers and threads with tickets before and after the cut. `keep_early` drops their tickets after it, so all of
    them train; `keep_late` drops those before it, so all are held out. `balance` holds out those that lose fewest
    tickets, until half of the window is held out."""
    seed: int = Field(default=0, ge=0)
    """Seed of the hashes that order customers and threads."""
    stable: bool = True
    """Keep every ticket in the split of the last complete run: it never moves from train to test, and from test to
    train only when its window has retired."""
    retire_after_days: int | None = Field(default=None, ge=1)
    """With `stable`: a held-out ticket this much older than the newest ticket retires and may be trained on, which is
    recorded; null retires none, and test grows with every run."""


def _order_faults(steps: tuple[CurateStep, ...]) -> list[Conflict]:
    """Return what is wrong with the order of the steps, each with the step to move."""
    return [*_repeated(steps), *_before_redaction(steps), *_scores_not_filled(steps), *_after_dedup(steps)]


def _repeated(steps: tuple[CurateStep, ...]) -> Iterator[Conflict]:
    seen: set[str] = set()
    for index, step in enumerate(steps):
        if not step.once and not isinstance(step, NamedStepSpec):
            continue
        if step.label in seen:
            message = f"two steps are named {step.label!r}" if not step.once else f"`{step.uses}` is listed twice"
            yield Conflict(message, at=("steps", index, "uses" if step.once else "name"), hint="keep one of them")
        seen.add(step.label)


def _before_redaction(steps: tuple[CurateStep, ...]) -> Iterator[Conflict]:
    redact = next((index for index, step in enumerate(steps) if isinstance(step, RedactStep)), None)
    for index, step in enumerate(steps[: redact or 0]):
        if step.after_redact:
            message = f"`{step.uses}` comes before `redact`"
            yield Conflict(message, at=("steps", index, "uses"), hint=f"move it down: {step.after_redact}")


def _scores_not_filled(steps: tuple[CurateStep, ...]) -> Iterator[Conflict]:
    filled: set[str] = set()
    filler = {column: uses for uses, columns in SCORES_OF.items() for column in columns}
    for index, step in enumerate(steps):
        if isinstance(step, RuleStep):
            words = {word.lower() for word in _WORD.findall(_QUOTED.sub("", step.keep))}
            for column in sorted(words & filler.keys() - filled):
                yield Conflict(
                    f"rule {step.name!r} uses `{column}`, which the step `{filler[column]}` fills",
                    at=("steps", index, "keep"),
                    hint=f"put `- uses: {filler[column]}` before it",
                )
        filled |= set(SCORES_OF.get(step.uses, ()))


def _after_dedup(steps: tuple[CurateStep, ...]) -> Iterator[Conflict]:
    dedup = next((index for index, step in enumerate(steps) if isinstance(step, DedupStep)), None)
    if dedup is None:
        return
    for index, step in enumerate(steps[dedup:], start=dedup):
        if step.before_dedup:
            hint = f"move it up: {step.before_dedup}"
            yield Conflict(f"`{step.uses}` comes after `dedup`", at=("steps", index, "uses"), hint=hint)
