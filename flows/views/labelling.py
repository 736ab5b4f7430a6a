"""What people have to label of a run, what they have labelled, and how far they agree.

Reads the run's answers from the store and the labels of its pipeline.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Any

import pyarrow.parquet as pq

from flows.context.labels import Votes, read_votes, settle_votes
from flows.ledger.open import open_ledger
from flows.views.run_reader import Recorded, spec_of
from flows.workspace.settings import Settings
from schemas.artifacts import EvalSet, Scores
from schemas.curation_steps import RedactStep
from schemas.errors import ConfigError, TunegateError
from schemas.metrics import RIGHT
from schemas.pipeline import PipelineSpec
from schemas.report import LabelFacts
from tasks.assess.evidence import BASELINE_ARMS, Arms, ArmScores
from tasks.assess.items import extra_items
from tasks.assess.label_files import Sheet
from tasks.assess.labels import LABELLED, AnswerKeys, Question, find_questions, label_terms, read_answers, slices_count
from tasks.assess.llm_judge import kappa
from tasks.assess.power import ASSUMED_DISCORDANCE
from tasks.assess.questions import rules_without_labels
from tasks.curate.redact import redact_row
from tasks.tickets.draw import hash_rank

RECENT_RUNS = 20
DIFFERING = 1.4
"""Items with different answers per item on which one arm is right and the other wrong, before a run has measured it: on
about 3 in 10 both answers are right, or both wrong."""


@dataclass(frozen=True)
class Labelling:
    """The questions of one run, and the labels that its pipeline has."""

    recorded: Recorded
    spec: PipelineSpec
    rows: Mapping[str, Mapping[str, Any]]
    """Item id -> the held-out item."""
    questions: tuple[Question, ...]
    votes: Mapping[str, Votes]
    """Rater -> labels."""

    @cached_property
    def _scores(self) -> dict[str, Scores]:
        found = {arm: self.recorded.scores(arm) for arm in compared_arms(self.recorded)}
        return {arm: scores for arm, scores in found.items() if scores is not None}

    @cached_property
    def settled(self) -> dict[str, bool]:
        """Id of a label -> whether most raters accept the answer."""
        return settle_votes(self.votes)

    def open_for(self, rater: str) -> list[Question]:
        """Return what this rater has not labelled, in an order of their own."""
        given = self.votes.get(rater, {})
        todo = [each for each in self.questions if not each.answers.keys() <= given.keys()]
        return sorted(todo, key=lambda each: hash_rank(f"{rater} {each.item_id}", seed=self.spec.evaluate.seed))

    def undecided(self) -> tuple[str, ...]:
        """Return the rules that missing labels can still decide."""
        decision, items = self.recorded.decision(), self.recorded.result("items", EvalSet)
        if decision is None or decision.use is None or items is None:
            return (RIGHT,)
        candidate = ArmScores(self._scores["tuned"], labels=self.settled)
        # If it stopped early, only the items that it answered are judged.
        arms = {arm: ArmScores(found, of=candidate, labels=self.settled) for arm, found in self._scores.items()}
        compared = Arms(
            candidate=candidate,
            champion=arms.get("champion"),
            champion_version=decision.champion_version,
            anchor=arms.get("anchor"),
            anchor_version=decision.anchor_version,
            baselines={arm: scores for arm, scores in arms.items() if arm in BASELINE_ARMS},
        )
        return rules_without_labels(
            compared, self.spec.judged_gates, items, alpha=1 - decision.use.confidence, extra=extra_items(items)
        )

    def is_enough(self, rater: str) -> bool:
        """Return whether no label that is left can change a rule, by this rater's labels alone and by those of all.

        A second rater labels as if there were no first, so that their agreement is known.
        """
        alone = replace(self, votes={rater: self.votes.get(rater, {})})
        return not self.undecided() and not alone.undecided()

    def sheet(self, question: Question) -> Sheet:
        """Return the question as a person sees it: redacted, its answers shuffled."""
        row = self.rows[question.item_id]
        steps = [step for step in self.spec.curate.steps if isinstance(step, RedactStep)]
        texts: dict[str, str | None] = {"subject": row.get("subject"), "body": row.get("body"), **question.answers}
        for step in (*steps, RedactStep(uses="redact")):  # a model may write what no ticket shows
            texts, _ = redact_row(texts, step)
        shown = "\n\n".join(part for part in (texts["subject"], texts["body"]) if part)
        answers = {label: texts[label] or "" for label in question.answers}
        return Sheet.of(question.item_id, shown, answers, seed=self.spec.evaluate.seed)

    def facts(self) -> LabelFacts:
        """Count what is needed and made."""
        labelled = [each for each in self.questions if each.answers.keys() <= self.settled.keys()]
        raters = {name: self._choices(votes) for name, votes in self.votes.items()}
        raters = {name: choices for name, choices in raters.items() if choices}
        agreement = {}
        for one, other in combinations(sorted(raters), 2):
            shared = sorted(raters[one].keys() & raters[other].keys())
            agreement[f"{one}, {other}"] = (
                len(shared), kappa([(raters[one][item], raters[other][item]) for item in shared])
            )  # fmt: skip
        return LabelFacts(
            n_items=len(self.rows),
            n_differing=sum(len(each.answers) > 1 for each in self.questions),
            n_needed=len(self.questions),
            n_made=len(labelled),
            undecided=() if len(labelled) == len(self.questions) else self.undecided(),
            n_disputed=len(self._disputed()),
            raters={name: len(choices) for name, choices in raters.items()},
            agreement=agreement,
            doubtful_references=tuple(self._doubtful()),
        )

    def _choices(self, votes: Votes) -> dict[str, str]:
        """Item -> the choice of one rater, by the order of the labels' ids."""
        return {
            each.item_id: "".join("ab"[votes[label]] for label in sorted(each.answers))
            for each in self.questions
            if each.answers.keys() <= votes.keys()
        }

    def _disputed(self) -> list[str]:
        given = {label for votes in self.votes.values() for label in votes}
        return [each.item_id for each in self.questions if given & each.answers.keys() - self.settled.keys()]

    def _doubtful(self) -> list[str]:
        """Items whose reference answer people reject, or without need for it: all answers right, and none is it."""
        keys, found = AnswerKeys(label_terms(self.spec.evaluate, self.spec.train.prompt.answer)), []
        # Where no answer ever equals its reference, references are prose, and other words are right too.
        by_value = any((each.means.get("exact") or 0.0) > 0 for each in self._scores.values())
        for each in self.questions:
            reference = keys.label_of_reference(self.rows[each.item_id])
            if reference is None:
                continue
            given = [self.settled.get(label) for label in each.answers]
            all_right = by_value and len(given) > 1 and all(given) and reference not in each.answers
            if all_right or (reference in each.answers and self.settled.get(reference) is False):
                found.append(each.item_id)
        return found


def compared_arms(recorded: Recorded) -> list[str]:
    """Return the arms that the run compared by `right`, the candidate first."""
    arms = [key.removeprefix(f"{LABELLED}_") for key in recorded.keys if key.startswith(f"{LABELLED}_")]
    return sorted(arms, key=lambda arm: arm != "tuned")


def labelling_of(recorded: Recorded) -> Labelling:
    """Return what is to be labelled of a run, and what is labelled.

    Raises:
        ConfigError: TG0159, its pipeline declares no labels, it answered nothing, or its answers are gone.
    """
    spec, run_id = spec_of(recorded.row), recorded.row.run_id
    arms = compared_arms(recorded)
    if spec.evaluate.labels is None or not arms:
        raise ConfigError(
            f"run {run_id} has no answers to label", code="TG0159", where=run_id,
            hint="declare `labels: differing` under evaluate, and run again",
        )  # fmt: skip
    items, answered = recorded.result("items", EvalSet), [recorded.answered(arm) for arm in arms]
    predictions = [each.predictions for each in answered if each is not None and each.predictions is not None]
    if items is None or len(predictions) < len(arms):
        raise ConfigError(f"the answers of run {run_id} are no longer in the store", code="TG0159", where=run_id)
    answers = list(map(read_answers, predictions))
    left_out = frozenset() if slices_count(spec.gates) else extra_items(items)
    table = pq.read_table(items.root / "items.parquet").to_pylist()
    rows = {row["item_id"]: row for row in table if row["item_id"] not in left_out}
    votes = read_votes(recorded.settings.home, recorded.row.pipeline)
    terms = label_terms(spec.evaluate, spec.train.prompt.answer)
    return Labelling(recorded, spec, rows, find_questions(list(rows), answers, terms), votes)


def planned_labels(spec: PipelineSpec, settings: Settings, n_items: int | None) -> dict[str, int | None]:
    """Return the labels that the next verdict needs, and those of the newest verdict; empty if none are declared.

    Args:
        n_items: Held-out items; None before curation.
    """
    if spec.evaluate.labels is None:
        return {}
    share, n_made = DIFFERING * (spec.gates.power.discordance or ASSUMED_DISCORDANCE), 0
    for row in open_ledger(settings).runs(limit=RECENT_RUNS, pipeline=spec.name):
        try:
            facts = labelling_of(Recorded(settings, row.run_id)).facts()
        except TunegateError:  # it compared nothing by labels
            continue
        share, n_made = facts.n_differing / facts.n_items, facts.n_made
        break
    more = spec.evaluate.random_labels * (1 - share)
    return {
        "labels_to_make": None if n_items is None else min(n_items, round(share * n_items + more)),
        "labels_made": n_made,
    }
