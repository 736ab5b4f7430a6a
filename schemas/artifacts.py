"""Frozen references that steps pass on: a directory, its digest, and a few counts.

A task writes files into the directory `out` and returns a reference with `root=out`. The store
(`flows/graph/store.py`) hashes the directory, renames it into place and returns the reference with its final `root` and
`digest`. Data frames, models and pickles are never passed on.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.data_checks import CheckResult
from schemas.diagnosis import Diagnosis, LabelGroup, LabelShift
from schemas.evaluation import Arm, SearchSpec
from schemas.spec import Frozen
from schemas.training import Format, Method, PromptSpec
from schemas.verdicts import EvidenceUse, Finding, InterimUse, Verdict

ModelArm = Literal["tuned", "champion", "anchor"]
"""Arms that a trained model answers."""
ScoredArm = ModelArm | Arm | Literal["tfidf_examples"]
"""tfidf_examples is the classifier tfidf, taught with the candidate's examples alone. No rule compares with it."""


class Artifact(Frozen):
    """A complete directory in the store."""

    root: Path
    """Directory with the files."""
    digest: str = ""
    """sha256 of the directory's manifest: equal bytes, equal digest. Empty until the store has committed it."""


@dataclass(frozen=True)
class ArtifactGroup:
    """Artifacts that a step takes as one argument; each field is an artifact, a tuple of artifacts, or None."""


class RowCounts(Frozen):
    """Rows of one step by outcome. Always: n_in = n_out + n_quarantined + n_dropped + n_merged."""

    n_in: int = Field(ge=0)
    n_out: int = Field(ge=0)
    n_quarantined: int = Field(default=0, ge=0)
    n_dropped: int = Field(default=0, ge=0)
    n_merged: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _nothing_is_lost(self) -> Self:
        out = self.n_out + self.n_quarantined + self.n_dropped + self.n_merged
        if self.n_in != out:
            raise ValueError(f"rows are not conserved: {self.n_in} in, {out} accounted for")
        return self


class TicketTable(Artifact):
    """Tickets after one curation step.

    `tickets.parquet`: kept tickets (columns of `schemas.tables.TICKET_COLUMNS`), ordered by ticket_id.
    `removed.parquet`: all others (columns of `schemas.tables.REMOVED_COLUMNS`).
    """

    rows: RowCounts
    notes: dict[str, int] = Field(default={})
    """Further counts: rows per rule, placeholders per type, unknown columns, clusters."""

    @property
    def tickets(self) -> Path:
        return self.root / "tickets.parquet"

    @property
    def removed(self) -> Path:
        return self.root / "removed.parquet"


class Perplexities(Artifact):
    """`perplexities.parquet`: ticket_id, perplexity (of the body under the base model; null for a body of fewer than
    two tokens), ordered by ticket_id. If some body failed, also fault: the type of its exception."""

    n_tickets: int
    n_tokens: int
    """Tokens that were scored."""


class Splits(Artifact):
    """`train.parquet`, `validation.parquet`, `test.parquet` (ticket columns) and `removed.parquet`; the split step adds
    `assignments.parquet` and `strata.parquet` (`schemas.tables`: ASSIGNMENTS, STRATA). The step `passages` adds the
    columns passages (the text for a prompt) and cited (their ids), and has no `removed.parquet`."""

    rows: RowCounts
    n_train: int
    n_validation: int
    n_test: int
    group_by: tuple[str, ...] = ()
    """Columns whose values are each in only one of the three."""
    seed: int | None = None
    """Seed of the split; a later split extends this one only with the same seed. Null if unknown."""
    cut: datetime | None = None
    """UTC. Train and validation are earlier, newly held-out tickets are not; null if the split was not by time."""
    notes: dict[str, int] = Field(default={})

    @property
    def train(self) -> Path:
        return self.root / "train.parquet"

    @property
    def validation(self) -> Path:
        return self.root / "validation.parquet"

    @property
    def test(self) -> Path:
        return self.root / "test.parquet"

    @property
    def removed(self) -> Path:
        return self.root / "removed.parquet"

    @property
    def assignments(self) -> Path:
        return self.root / "assignments.parquet"

    @property
    def strata(self) -> Path:
        return self.root / "strata.parquet"


class CorpusRef(Artifact):
    """Passages of `evaluate.corpus` with their index. `passages.parquet`: passage_id, source (file, and line of JSON
    Lines), heading, text. `removed.parquet`: those dropped because they hold a held-out question (code, kept_id). The
    index: `bm25_*`, and `vectors.npy` with embeddings."""

    search: SearchSpec
    n_articles: int
    n_passages: int
    n_dropped: int
    n_redacted: int
    """Passages in which something was redacted."""


class WarehouseRef(Artifact):
    """`warehouse.duckdb` (raw_tickets, curated, removed, duplicates, splits, funnel and views; each documented in the
    database) and some of its tables as Parquet, to query in SQL. No step reads it, and equal rows may have different
    bytes."""

    n_tickets: int
    """Rows read from the source."""
    snapshot_id: str
    """Digest of every step's rows: equal id, equal tables."""

    @property
    def database(self) -> Path:
        return self.root / "warehouse.duckdb"


class CheckResults(Artifact):
    """Results of the pipeline's `checks`, also as `checks.json`."""

    results: tuple[CheckResult, ...]
    n_rows: dict[str, int]
    """Table -> rows, which the next run's volume is compared with."""


class CurationCard(Artifact):
    """`card.json` (`schemas.curation_card.CardNumbers`) and `card.html`, a fragment for the report: the numbers of
    curation, without ticket text."""

    n_read: int
    """Rows read from the source."""
    n_train: int
    n_validation: int
    n_test: int
    n_merged: int
    """Duplicates merged into a kept ticket."""
    n_shifted: int
    """Columns whose distribution changed much since the last card; 0 without an earlier card."""

    @property
    def numbers(self) -> Path:
        return self.root / "card.json"


class ModelRef(Artifact):
    """A base model as a Hugging Face directory: config.json, model.safetensors, tokenizer files."""

    uri: str
    n_parameters: int
    vocab_size: int
    context_length: int
    """Tokens."""


class DatasetRef(Artifact):
    """Token ids and loss masks: `train/` and `validation/` as memory-mapped `datasets` Arrow directories.

    Columns: ticket_id, input_ids (list of int32), loss_mask (list of int8: 1 if the token carries loss).
    """

    n_train: int
    n_validation: int
    n_tokens: int
    """Tokens of the train examples."""
    n_supervised: int
    """Train tokens that carry loss."""
    n_dropped: int
    """Train and validation tickets without an example, listed in `removed.parquet`: dropped since over max_length, or
    quarantined."""
    max_tokens: int
    """Longest train example, tokens."""
    n_rewritten: int = 0
    """Earlier answers of the train examples without loss: the template writes them differently when a turn follows, so
    that they continue no prompt."""


class TrainedRef(Artifact):
    """The result of a training. lora and qlora: `adapter_config.json` + `adapter_model.safetensors` (PEFT form);
    full: a whole model directory. Always: `curves.parquet` (step, loss, learning_rate, grad_norm, n_tokens,
    validation_loss) and `training.json` (resolved settings, seeds, predicted memory). With `validation_items`:
    `validation_answers.parquet` (step, item_id, text, n_new_tokens, finished, loss). Of a model that was trained
    elsewhere there are no curves, and `training.json` says what was checked."""

    method: Method
    format: Format
    base_digest: str
    n_trainable: int
    n_steps: int
    n_tokens: int
    """Train tokens processed, all epochs."""
    train_loss: float | None
    """Mean loss of the last tenth of the steps, nats per supervised token; None if it was trained elsewhere."""
    validation_loss: float | None = None
    """Of the kept weights, nats per supervised token."""
    started_from: str | None = None
    """Digest of the champion's adapter that the training continued from; None if it started from the base."""
    external: str | None = None
    """Address of a model that was trained elsewhere, whose steps and tokens are not known (0); None if it was trained
    here."""
    warnings: tuple[str, ...] = ()
    """What could not be checked of a model that was trained elsewhere, a sentence each."""


class ValidationCurves(Artifact):
    """`curves.parquet` of the training with a column `validation_<metric>` for each of `train.validation_metrics`."""

    n_items: int
    """Validation tickets answered each time."""
    n_validations: int
    last: dict[str, float]
    """Metric -> mean at the last validation, without metrics that have a value that is not finite."""


class EvalSet(Artifact):
    """The versioned held-out set. `items.parquet`: ticket columns of the chosen test rows, ordered by item_id
    (= ticket_id), plus `answer` (the reference answer). `removed.parquet`: rows without a prompt, if there are any."""

    n_items: int
    n_available: int
    """Test rows that the items were chosen from."""
    n_fresh: int | None = None
    """Of these, rows that were neither chosen nor shown to people: left for later sets."""
    n_quarantined: int = 0
    """Of these, rows that would have been chosen but have no prompt."""
    n_repeated: int = 0
    """Of these, rows that would have been chosen but have the prompt of another item."""


class PromptSet(Artifact):
    """`prompts.parquet`: item_id, messages (JSON list of {role, content}; format instruction) or text
    (format completion), answer. One row per item, ordered by item_id."""

    arm: Literal["tuned", "zero_shot", "few_shot", "retrieval", "rag", "suite"]
    format: Format
    n_items: int


class LabelSet(Artifact):
    """The closed set of labels of a field of the answers, from train alone; also `labels.json`."""

    field: str
    pattern: str
    """`evaluate.fields`, which finds the field in an answer."""
    labels: tuple[str, ...]
    """Sorted."""


class CurvePoint(Frozen):
    """How often the surest tickets are right."""

    coverage: float
    """Their share of all tickets, 0-1."""
    accuracy: float
    """0-1."""


class CertifiedRef(Artifact):
    """Whether an arm's labels may be routed without a person, and from which probability; also `certificate.json`."""

    arm: ScoredArm
    field: str
    target: float
    confidence: float
    temperature: float
    """What likelihoods are divided by to be probabilities, fitted on planning tickets."""
    threshold: float | None
    """Least probability of the written label, 0-1; null if nothing is certified and all tickets go to review."""
    coverage: float
    """Share of the calibration tickets at the threshold or above."""
    n_calibration: int
    n_clusters: int | None
    """Clusters of `gates.cluster_by` among them; null without it."""
    n_routed: int
    n_right: int
    n_more: int | None
    """About so many more calibration tickets would do, if nothing is certified; null if no number would."""
    sentence: str
    curve: tuple[CurvePoint, ...]
    """Of the calibration tickets, the surest first."""
    agreement: float | None = None
    """Share of the written labels that are also the likeliest of the set, 0-1; null of a classifier, which writes none,
    and without labels."""
    separation: float | None = None
    """Chance that an answer with the right label has a larger `answer_log` than one with a wrong label, 0-1: 0.5 is
    chance. Null of a classifier, and if all are right or all wrong."""


class ServedCertificate(Frozen):
    """What a served version needs to say of each answer whether it may be routed without a person."""

    field: str
    pattern: str
    """`evaluate.fields`, which finds the field in an answer."""
    labels: tuple[str, ...]
    """As of `LabelSet`."""
    temperature: float
    threshold: float | None
    """Least probability of the written label, 0-1; null if nothing is certified and all tickets go to review."""
    target: float
    confidence: float
    coverage: float
    n_calibration: int
    sentence: str

    @classmethod
    def of(cls, certified: CertifiedRef, labels: LabelSet) -> Self:
        """Of the candidate's certificate."""
        shared = cls.model_fields.keys() & CertifiedRef.model_fields.keys()
        values = {name: getattr(certified, name) for name in shared}
        return cls(pattern=labels.pattern, labels=labels.labels, **values)


class Predictions(Artifact):
    """`predictions.parquet`: item_id, text, n_new_tokens, finished (false if it reached the token limit),
    loss (nats per token of the reference answer). Ordered by item_id. With a `LabelSet` also answer_log: the mean
    log-likelihood of the answer's own tokens, nats; and label_logs: the log-likelihood of each of its labels where the
    answer wrote one, nats; null if it wrote none of them. Of an endpoint also n_prompt_tokens, as it counts
    them, and has_text."""

    n_items: int
    n_new_tokens: int
    n_replies_cut: int | None = None
    """Items whose reference answer has more tokens than an answer may have; None if its tokens are not known."""
    n_planned: int | None = None
    """Items that were to be answered, if the run stopped before the last (`gates.interim`); null if all were."""
    labels_digest: str | None = None
    """Of the `LabelSet`; null without one."""


class InterimAnswers(Artifact):
    """`predictions.parquet`, as in `Predictions`, of the items that were answered before `gates.interim` stopped, or
    of all."""

    n_new_tokens: int
    use: InterimUse


class Scores(Artifact):
    """`scores.parquet`: item_id, metric, value (float; 0/1 for right and wrong). `slices.parquet`: item_id,
    slice (`column=value`). `means`: metric -> mean over items."""

    arm: ScoredArm
    n_items: int
    n_replies_cut: int | None = None
    """As of the `Predictions`."""
    n_examples: int | None = None
    """Train tickets that a classifier learned from; null for other arms."""
    means: dict[str, float]


class LabelSources(Artifact):
    """Whose labels disagree. `label_suspects.parquet`: ticket_id, source, source_line, week, split, value, confidence,
    suggested, suggested_confidence; the least likely label first, without ticket text."""

    field: str
    """The column of labels that was checked."""
    n_checked: int
    """Tickets whose label could be checked."""
    n_suspects: int
    n_sure: int = 0
    """Tickets of which the classifier is surest; of these labels it contradicts `n_contradicted`."""
    n_contradicted: int = 0
    groups: tuple[LabelGroup, ...]
    """Files and weeks, those that are named first."""
    shifts: tuple[LabelShift, ...]
    """Of the label columns, if the tickets that the champion's verdict knew are known."""

    @property
    def suspects(self) -> Path:
        return self.root / "label_suspects.parquet"


class GateDecision(Artifact):
    """`decision.json` holds the same. PROMOTE only if every finding that decides is PROMOTE."""

    verdict: Verdict
    reason: str
    findings: tuple[Finding, ...]
    n_items: int
    champion_version: str | None
    """Version that the candidate was compared with; null if there was none."""
    best_baseline: str | None = None
    anchor_version: str | None = None
    """Version that `mode: refresh` must not drift below; null if no rule needs one."""
    use: EvidenceUse | None = None
    """How often these items and this candidate have been judged."""
    remark: str = ""
    """What explains the verdict and is in no rule, such as replies that are cut; `reason` ends with it."""
    cheaper: str = ""
    """A sentence about an arm that costs less, is better at what is trained, and is compared by no rule; `reason` ends
    with it."""
    references: str = ""
    """A sentence about a margin that tolerates more than it says, since references are wrong; `reason` ends with it."""
    interim: InterimUse | None = None
    """How many of the planned items were answered; null without `gates.interim`."""
    diagnosis: Diagnosis | None = None
    """The champion's earlier scores and the labels of files and weeks; null without a champion."""

    def evidence_used(self) -> str:
        """How often items and candidate have been judged, and how many items were answered; empty if unknown."""
        return "; ".join(each.sentence() for each in (self.use, self.interim) if each is not None)


class BundleRef(Artifact):
    """A candidate ready to serve: adapter or model files, `serving.json` (base uri and digest, prompt, format,
    max_new_tokens, certificate), README.md (model card) and MANIFEST.json."""

    n_bytes: int


class ChampionRef(Frozen):
    """The champion, as the ledger records it."""

    name: str
    version: str
    run_id: str
    model: ModelRef
    trained: TrainedRef
    prompt: PromptSpec
    """The texts around a ticket that it was trained with and must be served with."""
    max_new_tokens: int
    bundle: BundleRef
    verdict_digest: str
    promoted_at: str
    """UTC, ISO 8601."""
    certificate: ServedCertificate | None = None
    """From which probability its answers need no person, as in its bundle; None if `evaluate.abstain` was not set."""

    @property
    def judged(self) -> Artifact:
        """What was judged: equal digests are one candidate."""
        return self.trained

    @property
    def files(self) -> Artifact:
        """What the history has the digest of."""
        return self.bundle


class CheckedModel(Artifact):
    """What results of a file are of, as `model.json`: equal models are one candidate, however often it is judged."""

    of: str
    """`--version-of`, or the file's sha256."""


class CheckedResults(Artifact):
    """The per-item results of a file, as `rows.jsonl`: item, repeat, values, and hashes of all texts."""

    name: str
    """The file's name."""
    sha256: str
    """Of the file."""
    tool: str
    model_name: str | None = None
    """The model, if the file names it."""
    n_items: int
    measured: dict[str, str]
    """Metric -> `column`, or the digest of how answers were scored: only values of the same way are compared."""


class CheckedRef(Frozen):
    """A version of a name whose results were made elsewhere (`tunegate gate check NAME`), as the ledger records it."""

    name: str
    version: str
    run_id: str
    model: CheckedModel
    results: CheckedResults
    verdict_digest: str
    promoted_at: str
    """UTC, ISO 8601."""

    @property
    def judged(self) -> Artifact:
        """What was judged: equal digests are one candidate."""
        return self.model

    @property
    def files(self) -> Artifact:
        """What the history has the digest of."""
        return self.results


BATCH_SIZES = (2, 4, 8, 16, 32, 64)
"""Batches that the latency check can time; `batch_8_s` is the mean seconds until a batch of eight is answered."""
LATENCY_FIGURES = (
    "latency_p50_s", "latency_p95_s", "tokens_per_s", "reference_latency_p50_s", "reference_latency_p95_s",
    "reference_tokens_per_s", "usd_per_1k", *(f"batch_{size}_s" for size in BATCH_SIZES),
)  # fmt: skip
"""Figures of the latency check; kept outside the store, since no digest may depend on seconds."""
ENDPOINT_FIGURES = ("endpoint_mean_s", "endpoint_latency_p50_s", "endpoint_latency_p95_s")
"""Seconds of an endpoint's answers, over the network; kept as those of the latency check."""


class CheckEvidence(Artifact):
    """What the step of a gate's check measured, without any limit; `evidence.parquet` or `.json` has the details.

    It is judged in another step, so that a new limit does not measure again. It has no ticket text.
    """

    check: str
    """The check's key under `gates`, or divergence, which is part of forgetting."""
    n_items: int
    """Held-out items, prompts or secrets that were checked."""
    values: dict[str, float | None]
    """Measured values by name; null if not measurable, which never passes."""
    examples: tuple[str, ...] = ()
    """The first few ids of a bad value."""
