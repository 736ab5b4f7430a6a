"""Everything that a run's report shows, as plain data: `report.json`, and the only input of the page.

`flows/views/report.py` collects it from ledger and store; `tasks/release/reports/` writes the page, the comment and the
JUnit file. Only `worst` and `removed` have ticket text, which is redacted.
"""

from collections.abc import Collection
from typing import Any, Literal, Self

from schemas.artifacts import CurvePoint
from schemas.costs import CostReport
from schemas.curation_card import LabelBalance
from schemas.data_checks import CheckResult
from schemas.diagnosis import Diagnosis
from schemas.spec import Frozen
from schemas.verdicts import Finding

PictureState = Literal["reused", "made", "run", "maybe", "left out", "failed", "not run"]
"""reused: its result was in the store. made: this run made it. run: a run would make it. maybe: known only once an
earlier node has run. left out: not wanted, for the given reason. failed: this run could not make it. not run: the run
ended before."""
Edge = tuple[str, str]
"""(from, to), by name."""


class PictureNode(Frozen):
    """One node."""

    name: str
    """As Prefect shows it: `answers · champion`."""
    stage: str
    state: PictureState
    seconds: float | None
    """Duration, or in a plan the usual one; 0 if reused, null if unknown."""
    reason: str = ""
    """Why it would run, is left out or failed; empty otherwise."""

    @property
    def status(self) -> str:
        """The state and, if any, the time: `made, 31.2 s`."""
        if not self.seconds or self.state not in ("made", "run", "maybe"):
            return self.state
        return f"{self.state}, {self.seconds:.1f} s"


class GraphPicture(Frozen):
    """Nodes and edges, in an order in which the nodes can run."""

    nodes: tuple[PictureNode, ...]
    edges: tuple[Edge, ...]
    deciding: tuple[Edge, ...] = ()
    """Edges that pass no result: their start only decides whether their end runs."""

    def stages(self) -> dict[str, list[PictureNode]]:
        """The nodes of each stage, in order."""
        found: dict[str, list[PictureNode]] = {}
        for node in self.nodes:
            found.setdefault(node.stage, []).append(node)
        return found

    def counts(self) -> dict[PictureState, int]:
        """Number of nodes in each state."""
        found: dict[PictureState, int] = {}
        for node in self.nodes:
            found[node.state] = found.get(node.state, 0) + 1
        return found

    def with_made(self, names: Collection[str]) -> Self:
        """The same, with those of these nodes that were not run marked as made."""
        made = {"state": "made", "reason": ""}
        nodes = tuple(
            node.model_copy(update=made) if node.name in names and node.state == "not run" else node
            for node in self.nodes
        )
        return self.model_copy(update={"nodes": nodes})

    def to_json(self) -> dict[str, Any]:
        """Only nodes and edges."""
        return self.model_dump(mode="json", include={"nodes", "edges"})


class ArmLine(Frozen):
    """The mean of each metric of one arm on the held-out items."""

    arm: str
    """`tuned` is the candidate; others are champion, zero_shot, few_shot, tfidf, tfidf_examples and so on."""
    n_items: int
    n_examples: int | None = None
    """Tickets that it learned from, or that its prompts show; null if that is no longer known."""
    means: dict[str, float | None]

    @property
    def name(self) -> str:
        """As people read it."""
        return "candidate" if self.arm == "tuned" else self.arm.replace("_", " ")


class StepLine(Frozen):
    """The outcome of one step."""

    step: str
    state: str
    n_in: int | None
    n_out: int | None
    seconds: float
    digest: str


class FunnelLine(Frozen):
    """Rows of one curation step: n_in = n_out + n_merged + n_dropped + n_quarantined."""

    step: str
    n_in: int
    n_out: int
    n_merged: int
    n_dropped: int
    n_quarantined: int


class RemovedExample(Frozen):
    """One row that curation removed."""

    step: str
    outcome: str
    code: str
    reason: str
    where: str
    """Source and line; empty if unknown."""
    text: str
    """Subject and beginning of the body, redacted; empty if not kept."""


class Curve(Frozen):
    """One series over training steps."""

    name: str
    steps: tuple[int, ...]
    values: tuple[float, ...]


class Example(Frozen):
    """One held-out item, redacted, with the answers of candidate and reference."""

    item_id: str
    metric: str
    candidate: float
    reference: float | None
    question: str
    wanted: str
    candidate_answer: str
    reference_answer: str | None
    passages: tuple[str, ...] = ()
    """Passages of the corpus that fit it, each as source and heading."""


SHOWN_REFERENCES = 10


class LabelFacts(Frozen):
    """Labels of people that the verdict needs and has; no text."""

    n_items: int
    """Held-out items."""
    n_differing: int
    """Items on which the compared arms differ."""
    n_needed: int
    """Items to label: these, and the random part."""
    n_made: int
    """Of them, items whose answers all have a label on which most raters agree."""
    undecided: tuple[str, ...]
    """Rules that missing labels can still decide; empty if they can neither promote the candidate nor prevent it."""
    n_disputed: int
    """Items on which the raters disagree; another rater settles them."""
    raters: dict[str, int]
    """Rater -> items labelled."""
    agreement: dict[str, tuple[int, float | None]]
    """Two raters -> items that both labelled, and Cohen's kappa; null if it is undefined."""
    doubtful_references: tuple[str, ...]
    """Items whose reference answer is probably wrong: people reject it, or accept answers that it calls wrong."""

    @property
    def sentence(self) -> str:
        """The same as a sentence."""
        differing = f"the answers differ on {self.n_differing} of {self.n_items} items"
        said = f"{self.n_made} of {self.n_needed} labels made; {differing}"
        kappas = [f"kappa of {pair} {k:.2f} on {n}" for pair, (n, k) in self.agreement.items() if k is not None]
        left = self.n_needed - self.n_made
        idle = [f"the {left} that are left can neither promote nor prevent it"] if left and not self.undecided else []
        disputed = [f"raters disagree on {self.n_disputed}"] if self.n_disputed else []
        wrong = self.doubtful_references
        more = f" and {len(wrong) - SHOWN_REFERENCES} more" if len(wrong) > SHOWN_REFERENCES else ""
        doubtful = [f"probably wrong references: {', '.join(wrong[:SHOWN_REFERENCES])}{more}"] if wrong else []
        return "; ".join([said, *idle, *kappas, *disputed, *doubtful])


class CitedPassage(Frozen):
    """A passage of the corpus that prompts of held-out items show."""

    source: str
    """File, with `:` and the line in JSON Lines."""
    heading: str
    n_items: int


class CorpusFacts(Frozen):
    """What was read of `evaluate.corpus`, and what is cited."""

    n_articles: int
    n_passages: int
    n_dropped: int
    """Passages that hold a held-out question."""
    n_redacted: int
    n_items_without: int
    """Held-out items that share no word with any passage."""
    cited: tuple[CitedPassage, ...]
    """The most cited first."""


class Change(Frozen):
    """A setting or result that differs from the champion's run; null if one of them has none."""

    what: str
    champion: str | None
    candidate: str | None


class StartLine(Frozen):
    """The cost of one training by where it started, and what its model still can."""

    run_id: str
    version: str | None
    """Null for the run that is reported."""
    start: str
    """`base`, or `champion (version N)`."""
    n_examples: int
    n_steps: int
    n_tokens: int
    """Train tokens processed, all epochs."""
    seconds: float | None
    general: float | None
    """Share of right answers in the forgetting check; null if it was not declared."""
    general_of_base: float | None


class CertificateLine(Frozen):
    """What `evaluate.abstain` certified of an arm, or what is missing."""

    arm: str
    field: str
    threshold: float | None
    """Null if nothing is certified."""
    coverage: float
    """Share of the calibration tickets that is routed, 0-1."""
    sentence: str
    curve: tuple[CurvePoint, ...]
    """Of the calibration tickets, the surest first."""
    agreement: float | None = None
    """Share of the written labels that are also the likeliest, 0-1; null of a classifier."""
    separation: float | None = None
    """Chance that a whole answer with the right label is likelier per token than one with a wrong label, 0-1; null of a
    classifier, and if all are right or all wrong."""


class RunReport(Frozen):
    """A run from its tickets to its verdict."""

    run_id: str
    pipeline: str
    model_name: str
    """Empty for a pipeline of data alone."""
    verdict: str
    """PROMOTE, UNCOMPARED, HOLD, BLOCK, ERROR; NONE for a run that did not reach the gate. Of data alone DONE, or ERROR
    if the run failed, by a check or anything else."""
    reason: str
    as_of: str | None = None
    """Day of `--as-of`; such a run promotes nothing."""
    given: tuple[str, ...] = ()
    """Settings of `--set`, which this run had instead of the file's."""
    started_at: str
    ended_at: str | None
    version: str | None
    """Version of this run's candidate."""
    compared_with: str | None
    """Version of the champion that the candidate was compared with."""
    champion: str | None
    """Version that serves now."""
    evidence: str
    """Number of this verdict among those on the same items, as a sentence."""
    n_items: int
    n_items_quarantined: int = 0
    """Held-out tickets that were left out, because some arm could not make a prompt."""
    findings: tuple[Finding, ...]
    checks: tuple[CheckResult, ...] = ()
    """Results of `checks` of the data; freshness is judged as of the start of the run."""
    arms: tuple[ArmLine, ...]
    funnel: tuple[FunnelLine, ...]
    removed: tuple[RemovedExample, ...]
    """Three removed rows per code; empty in a report without texts."""
    training: dict[str, str]
    """Facts about the training, name -> text."""
    curves: tuple[Curve, ...]
    token_lengths: tuple[tuple[str, int], ...]
    """Train examples per range of tokens."""
    notes: tuple[str, ...] = ()
    """What the data or a limit keeps any model from, whatever its training."""
    encoded: LabelBalance | None = None
    """Labels of the encoded train tickets; null without labels."""
    choice: tuple[dict[str, str], ...]
    """Rungs or trials that were compared on validation; empty without `method: ladder` and `train.sweep`."""
    certificates: tuple[CertificateLine, ...] = ()
    """Of candidate, champion, tfidf, and of the anchor if a rule needs it; empty without `evaluate.abstain`."""
    corpus: CorpusFacts | None = None
    """Null without `evaluate.corpus`."""
    labels: LabelFacts | None = None
    """Null if no labels are declared."""
    diagnosis: Diagnosis | None = None
    """The champion's earlier scores, and the labels of files and weeks; null without a champion."""
    worst: tuple[Example, ...]
    changes: tuple[Change, ...]
    """Differences from the champion's run; empty without a champion."""
    starts: tuple[StartLine, ...] = ()
    """This training, and the newest one that began the other way (from the base, or from a champion); or empty."""
    costs: CostReport | None = None
    """Cost, latency and break-even; null if the tuned model did not answer."""
    graph: GraphPicture | None = None
    """The outcome of each node; null if the run did not record it."""
    steps: tuple[StepLine, ...]
    reproduce: str
    """The command that reproduces the run."""

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        if not self.model_name:
            return "The data are curated." if self.verdict == "DONE" else "No data are released by this run."
        if self.as_of is not None:
            return f"As of {self.as_of} the gate would have said {self.verdict}; this run releases nothing."
        what = f"Version {self.version}" if self.version else "The candidate"
        stays = f"champion version {self.compared_with} stays" if self.compared_with else "the prompting baselines stay"
        sentences = {
            "PROMOTE": f"{what} is better on evidence and may serve.",
            "UNCOMPARED": f"{what} meets its rules, but was not compared with the champion: a person must accept it.",
            "HOLD": f"{what} is not shown to be good enough: there is not enough evidence, and {stays}.",
            "BLOCK": f"{what} is worse than allowed and is not released.",
            "ERROR": f"{what} could not be judged, so nothing is released.",
        }
        return sentences.get(self.verdict, "This run reached no verdict.")
