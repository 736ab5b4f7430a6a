"""Read the stored results of a recorded run through the ledger: its decision, scores, answers and worst items.

Changes nothing but the ledger's record of the items of which people saw the text.
"""

from __future__ import annotations

from typing import TypeVar

from pydantic import ValidationError

from flows.ledger.open import open_ledger, open_store
from flows.ledger.rows import RunRow, flat
from flows.workspace.settings import Settings
from schemas.artifacts import Artifact, CurationCard, EvalSet, GateDecision, Predictions, Scores
from schemas.curation_card import CardNumbers
from schemas.errors import ConfigError
from schemas.metrics import MetricTraits
from schemas.pipeline import DataPipeline, PipelineSpec, pipeline_model, with_model
from schemas.registries import load_registries
from schemas.verdicts import Finding
from tasks.assess.abstain import ROUTED
from tasks.assess.labels import LABELLED
from tasks.assess.worst import AnsweredArm, WorstItem, worst_items

A = TypeVar("A", bound=Artifact)
HIDDEN = ("schedule", "register")
"""Parts of a configuration that do not affect a candidate."""


class Recorded:
    """One run of the ledger and what the store still has of it."""

    def __init__(self, settings: Settings, run_id: str) -> None:
        self.settings = settings
        self.ledger, self.store = open_ledger(settings), open_store(settings)
        self.row = self.ledger.run(run_id)
        self.steps = self.ledger.steps(self.row.run_id)
        self.keys = {step.step: step.key for step in self.steps if step.key}

    @classmethod
    def last(cls, settings: Settings, pipeline: str) -> Recorded | None:
        """Return the newest run of the pipeline; None if there is none."""
        rows = open_ledger(settings).runs(limit=1, pipeline=pipeline)
        return cls(settings, rows[0].run_id) if rows else None

    def result(self, step: str, kind: type[A], *, folder: str | None = None) -> A | None:
        """Return the step's result; None if the run did not reach it or it is no longer in the store."""
        return self.store.whole(folder or step, self.keys.get(step), kind)

    def of_training(self, step: str, kind: type[A]) -> A | None:
        """Like `result`, for `encode` or `base_model`: of the chosen training if there were several."""
        chosen = {"encode": "chosen_dataset", "base_model": "chosen_model"}[step]
        return self.result(chosen if chosen in self.keys else step, kind, folder=step)

    def decision(self) -> GateDecision | None:
        return self.result("gate", GateDecision)

    def card_numbers(self) -> CardNumbers | None:
        card = self.result("card", CurationCard)
        return None if card is None else CardNumbers.model_validate_json(card.numbers.read_bytes())

    def scores(self, arm: str) -> Scores | None:
        """Return the scores of one arm."""
        for step in (LABELLED, ROUTED, "scores"):  # each has what the later ones have
            if (found := self.result(f"{step}_{arm}", Scores, folder=step)) is not None:
                return found
        return self._classifier(arm)

    def answered(self, arm: str) -> AnsweredArm | None:
        """Return the scores of one arm with its answers; a classifier has none."""
        scores = self.scores(arm)
        answers = self.result(f"answers_{arm}", Predictions, folder="answers")
        is_whole = answers is not None or self._classifier(arm) is not None
        return AnsweredArm(scores, answers) if scores is not None and is_whole else None

    def _classifier(self, arm: str) -> Scores | None:
        return self.result(f"scores_{arm}", Scores, folder="classifier")

    def worst(self, decision: GateDecision, finding: Finding, n_items: int) -> tuple[WorstItem, ...]:
        """Return the items on which the candidate lost most by the finding's metric; the ledger records them as seen.

        Raises:
            ConfigError: TG0159, items or answers are gone.
        """
        if "checked_model" in self.keys:
            raise ConfigError("of results from files no text is kept", code="TG0159")
        items, candidate = self.result("items", EvalSet), self.answered("tuned")
        if items is None or candidate is None:
            raise ConfigError("held-out items or answers are no longer in the store", code="TG0159")
        arm = reference_arm(decision, finding)
        reference = None if arm is None else self.answered(arm)
        if arm is not None and reference is None:
            raise ConfigError(f"the answers of {arm} are no longer in the store", code="TG0159")
        found = worst_items(
            items=items,
            candidate=candidate,
            reference=reference,
            traits=MetricTraits(
                name=finding.metric,
                continuous=finding.method.endswith("bootstrap_t") and "+" not in finding.method,
                higher_is_better=finding.higher_is_better,
            ),
            slice_name=finding.slice,
            n_items=n_items,
        )
        if found:  # before anyone reads them
            self.ledger.record_seen(item.item_id for item in found)
        return found


def shown_finding(decision: GateDecision, metric: str | None = None) -> Finding | None:
    """Return the finding to show items of: the first of the metric, or the first that is not met, or the first.

    Raises:
        ConfigError: TG0159, the metric was not judged.
    """
    on_items = (finding for finding in decision.findings if not finding.is_check)
    judged = [finding for finding in on_items if finding.candidate is not None]
    if metric is not None:
        found = next((finding for finding in judged if finding.metric == metric), None)
        if found is None:
            known = ", ".join(dict.fromkeys(finding.metric for finding in judged)) or "none"
            raise ConfigError(
                f"no rule of this gate judged {metric!r}; judged metrics: {known}", code="TG0159", where="--metric"
            )
        return found
    unmet = (finding for finding in judged if finding.verdict != "PROMOTE")
    return next(unmet, judged[0] if judged else None)


def reference_arm(decision: GateDecision, finding: Finding) -> str | None:
    """Return the arm that the finding compared with; for an absolute limit the champion, if there is one."""
    if finding.reference is not None and "best_baseline (" in finding.rule:
        return finding.rule.partition("best_baseline (")[2].partition(")")[0]
    if finding.reference is not None and "anchor (" in finding.rule:
        return "anchor"
    if finding.reference is not None and "endpoint (" in finding.rule:
        return "endpoint"
    return "champion" if decision.champion_version is not None else None


def settings_of(row: RunRow) -> dict[str, str]:
    """Return path -> value of every recorded setting that affects a candidate."""
    return flat({name: value for name, value in row.config.items() if name not in HIDDEN})


def spec_of(row: RunRow) -> PipelineSpec:
    """Return the recorded configuration of a run that trains a model.

    Raises:
        ConfigError: TG0159, this version cannot read it, or it is one of data alone.
    """
    return with_model(declared_of(row))


def declared_of(row: RunRow) -> DataPipeline:
    """Return the run's recorded configuration, perhaps of data alone.

    Raises:
        ConfigError: TG0159, this version cannot read it.
    """
    load_registries()  # the run may have used registered steps, sources or metrics
    try:
        return pipeline_model(row.config).model_validate(row.config)
    except ValidationError as error:
        at = ".".join(map(str, error.errors()[0]["loc"]))
        raise ConfigError(
            f"this version cannot read the configuration of run {row.run_id} ({at})", code="TG0159",
            where=row.run_id, hint="use a newer run: `tunegate runs`",
        ) from None  # fmt: skip
