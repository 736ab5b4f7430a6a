"""What goes to review of tickets that no label fits, by three rules on equal probabilities: part of `bench-abstain`.

The classes of a set are left out of training in five parts, one after another, so each is left out once. The threshold
of `certified` and `naive` is found on questions of the other classes; `fixed` is the rule of LocalDesk 0.3.1
(`core.decide`): a probability of .75 and .2 more than the next one, with a fitted temperature as it has them.
"""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.mail_phrases import planted_mails
from tasks.assess.certify import Answered, certify
from tasks.assess.label_probability import fit_temperature

N_PARTS = 5
N_DRAWS = 200
"""Draws of calibration questions for each part."""
FIXED_CONFIDENCE, FIXED_MARGIN = 0.75, 0.2
GROUPS = ("left_out", "languages", "gibberish")
Labelled = tuple[list[str], list[str]]
Fit = Callable[[Sequence[str], Sequence[str]], tuple[Any, Any]]
Naive = Callable[[Answered, float], float | None]


@dataclass(frozen=True)
class Sure:
    """How sure the classifier is of each question."""

    confidence: NDArray[np.float64]
    """Probability of its label."""
    margin: NDArray[np.float64]
    """By how much it is more than that of the next label."""
    label: NDArray[np.str_]

    @property
    def fixed(self) -> NDArray[np.bool_]:
        """What LocalDesk's rule routes."""
        return (self.confidence >= FIXED_CONFIDENCE) & (self.margin >= FIXED_MARGIN)


@dataclass(frozen=True)
class Setting:
    """How thresholds are found."""

    n_planning: int
    n_calibration: int
    target: float
    confidence: float
    fit: Fit
    """Returns features and classifier of questions and labels."""
    naive: Naive


def measure(rows: Labelled, data: Path, setting: Setting, *, n_parts: int = N_PARTS) -> dict[str, dict[str, float]]:
    """Rule -> coverage, accuracy of what is routed, and share of each group that goes to review; means over all draws.

    Args:
        rows: Questions and labels, shuffled.
        n_parts: Parts of the classes to leave out; all five leave out each class once.
    """
    foreign = {"languages": other_languages(), "gibberish": gibberish(rows[0], data)}
    classes = sorted(set(rows[1]))
    random.Random(0).shuffle(classes)  # noqa: S311 (a draw, not a secret)
    found = [_leave_out(rows, set(classes[part::N_PARTS]), foreign, setting, seed=part) for part in range(n_parts)]
    return {
        rule: {figure: round(float(np.mean([each[rule][figure] for each in found])), 4) for figure in found[0][rule]}
        for rule in found[0]
    }


def other_languages() -> list[str]:
    """Sentences and mails of customers in German, French, Spanish, Italian, Portuguese and Dutch."""
    english = ("gb", "us")
    return sorted(
        {text for of in ("seen", "held_out") for text, _ in planted_mails(of, n_each=2, without=english)}  # type: ignore[arg-type]
    )


def gibberish(texts: Sequence[str], data: Path) -> list[str]:
    """The list of naughty strings, and as many questions whose letters are shuffled within each word."""
    draw = random.Random(0)  # noqa: S311 (a draw, not a secret)
    naughty = [text for text in json.loads((data / "naughty_strings" / "blns.json").read_bytes()) if text.strip()]
    shuffled = [" ".join("".join(draw.sample(word, len(word))) for word in text.split()) for text in texts]
    return [*naughty, *shuffled[: len(naughty)]]


def _leave_out(
    rows: Labelled, gone: set[str], foreign: Mapping[str, list[str]], setting: Setting, *, seed: int
) -> dict[str, dict[str, float]]:
    known = [(text, label) for text, label in zip(*rows, strict=True) if label not in gone]
    texts, labels = [text for text, _ in known], np.array([label for _, label in known])
    n_train = round(0.6 * len(texts))
    n_planned = n_train + setting.n_planning
    features, model = setting.fit(texts[:n_train], labels[:n_train].tolist())

    def margins(some: Sequence[str]) -> NDArray[np.float64]:
        return np.asarray(model.decision_function(features.transform(some)))

    planned = margins(texts[n_train:n_planned])
    temperature = fit_temperature(planned, np.searchsorted(model.classes_, labels[n_train:n_planned]))

    def sure(logs: NDArray[np.float64]) -> Sure:
        grown = np.exp((logs - logs.max(axis=1, keepdims=True)) / temperature)
        falling = np.sort(grown / grown.sum(axis=1, keepdims=True), axis=1)[:, ::-1]
        return Sure(falling[:, 0], falling[:, 0] - falling[:, 1], model.classes_[logs.argmax(axis=1)])

    planning, population = sure(planned), sure(margins(texts[n_planned:]))
    known_planning = Answered(planning.confidence, planning.label == labels[n_train:n_planned])
    right = population.label == labels[n_planned:]
    groups = {"left_out": [text for text, label in zip(*rows, strict=True) if label in gone], **foreign}
    outside = {name: sure(margins(some)) for name, some in groups.items()}

    def figures(routed: NDArray[np.bool_], routed_outside: Callable[[Sure], NDArray[np.bool_]]) -> dict[str, float]:
        return {
            "coverage": float(routed.mean()),
            "accuracy": float(right[routed].mean()) if routed.any() else 1.0,
            **{name: 1 - float(routed_outside(each).mean()) for name, each in outside.items()},
        }

    draw = np.random.default_rng(seed)
    drawn: dict[str, list[dict[str, float]]] = {"certified": [], "naive": []}
    for _ in range(N_DRAWS):
        chosen = draw.integers(0, len(right), setting.n_calibration)
        calibration = Answered(population.confidence[chosen], right[chosen])
        lowest = {
            "certified": certify(
                known_planning, calibration, target=setting.target, confidence=setting.confidence
            ).threshold,
            "naive": setting.naive(calibration, setting.target),
        }
        for rule, threshold in lowest.items():
            least = np.inf if threshold is None else threshold
            drawn[rule].append(
                figures(population.confidence >= least, lambda each, least=least: each.confidence >= least)
            )
    means = {
        rule: {name: float(np.mean([each[name] for each in some])) for name in some[0]} for rule, some in drawn.items()
    }
    return {**means, "fixed": figures(population.fixed, lambda each: each.fixed)}
