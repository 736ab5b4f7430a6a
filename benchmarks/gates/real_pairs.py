"""Real answers: cheap classifiers of public support questions stand for a champion and its candidates.

A classifier is trained on the first part of a set and answers the rest, several thousand questions, so its true
difference to the champion is known; a held-out set is a sample of those answers. Two sets, both outside the repository
(TUNEGATE_DATA, default ../shared/data); without them this part is left out. Knows nothing of rules.
"""

import csv
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.labels import SETS
from benchmarks.measure import PROJECT, RESULTS

N_TRAIN, N_FEW = 3000, 2000
NOISE = {"banking77": 0.0, "bitext": 0.25}
"""Share of wrong training labels: bitext is nearly solved without any, and equal models have nothing to compare."""


@dataclass(frozen=True)
class Pair:
    """A champion and a candidate on the same questions."""

    data: str
    candidate: str
    n: int
    gained: int
    lost: int
    differing: int
    """Questions that the two answer differently, right or wrong."""

    @property
    def delta(self) -> float:
        """True difference of the shares of right answers."""
        return (self.gained - self.lost) / self.n

    @property
    def discordance(self) -> float:
        """Share of questions that exactly one of the two answers right."""
        return (self.gained + self.lost) / self.n

    @property
    def differing_share(self) -> float:
        """Share of questions that the two answer differently."""
        return self.differing / self.n

    def samples(
        self, generator: np.random.Generator, n_items: int, rows: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Items gained and lost in samples of the questions, drawn without replacement."""
        cells = [self.gained, self.lost, self.n - self.gained - self.lost]
        drawn = generator.multivariate_hypergeometric(cells, n_items, size=rows)
        return drawn[:, 0], drawn[:, 1]


def real_pairs(*, quick: bool, seed: int = 0) -> list[Pair]:
    """The pairs of each set that is there; QUICK: of the first one."""
    folder = Path(os.environ.get("TUNEGATE_DATA") or PROJECT.parent / "shared" / "data")
    found = []
    for name, (path, text, label) in list(SETS.items())[: 1 if quick else None]:
        if (folder / path).exists():
            found += _pairs_of(name, folder / path, text, label, seed=seed)
    return found


def recorded_pairs() -> list[Pair]:
    """The pairs of fine-tuned models that `make bench-pairs` has recorded; empty before."""
    path = RESULTS / "pairs.md"
    if not path.exists():
        return []
    line = next(line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("{"))
    return [Pair(**pair) for pair in json.loads(line)["pairs"]]


def _pairs_of(name: str, path: Path, text: str, label: str, *, seed: int) -> list[Pair]:
    generator = np.random.default_rng(seed)
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    order = generator.permutation(len(rows))
    texts = np.array([row[text] for row in rows], object)[order]
    labels = np.array([row[label] for row in rows], object)[order]
    noisy = labels.copy()
    wrong = generator.random(len(labels)) < NOISE[name]
    noisy[wrong] = generator.permutation(labels)[wrong]
    train, few = np.arange(N_TRAIN), np.arange(N_FEW)
    if len(rows) < 2 * N_TRAIN:
        train, few = np.arange(1000), np.arange(700)

    def answers(chosen: NDArray[np.int64], **settings: Any) -> NDArray[Any]:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.naive_bayes import ComplementNB
        from sklearn.pipeline import make_pipeline

        model = make_pipeline(TfidfVectorizer(sublinear_tf=True, **settings), ComplementNB(alpha=0.3))
        found: NDArray[Any] = model.fit(texts[chosen], noisy[chosen]).predict(texts[N_TRAIN:])
        return found

    champion = answers(few)
    candidates = {
        "another sample of the same size": answers(generator.choice(train, len(few), replace=False)),
        "more data": answers(train),
        "fewer data": answers(few[: int(0.8 * len(few))]),
        "word pairs too": answers(few, ngram_range=(1, 2)),
    }
    truth = labels[N_TRAIN:]
    right = champion == truth
    return [
        Pair(
            name, what, len(truth), int(((own == truth) & ~right).sum()), int((right & (own != truth)).sum()),
            int((own != champion).sum()),
        )
        for what, own in candidates.items()
    ]  # fmt: skip
