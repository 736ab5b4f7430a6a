"""Macro-F1 as one value per item, so that a gate can bound it and compare two models on the same items.

F1 is not a mean over items. Each item's value is F plus its influence on F, so that their mean is exactly F; answers in
rare classes count more.
"""

from collections import Counter
from collections.abc import Sequence

from schemas.metrics import MacroF1Metric
from tasks.assess.metric import Answers, metric_of_all


@metric_of_all(MacroF1Metric)
def macro_f1(spec: MacroF1Metric, answers: Answers) -> dict[str, float]:
    """Item id -> its share of the macro-F1 of one field."""
    pattern = answers.fields
    if pattern is None:
        return {}
    ids = [str(item["item_id"]) for item in answers.items]
    truths = [None if item[spec.field] is None else str(item[spec.field]) for item in answers.items]
    predicted = [pattern.value_in(answers.texts[item], spec.field) for item in ids]
    return dict(zip(ids, macro_f1_values(truths, predicted), strict=True))


def macro_f1_values(truths: Sequence[str | None], predicted: Sequence[str | None]) -> list[float]:
    """One value per item; their mean is the unweighted mean of F1 over the values of the truths.

    An item without a truth is a false positive for the predicted value; a predicted None is a miss. Without any truth
    every value is NaN.

    >>> values = macro_f1_values(["a", "a", "b"], ["a", "b", "b"])
    >>> round(sum(values) / 3, 4)  # F1 is 2/3 for both
    0.6667

    Source: Hampel (1974), JASA 69:383-393, the influence curve: F1 = 2 TP / (predicted + true) is homogeneous of
    degree 0 in the counts, so that influences sum to 0.
    """
    n = len(truths)
    classes = sorted({truth for truth in truths if truth is not None})
    if not classes:
        return [float("nan")] * n
    pairs = Counter(zip(truths, predicted, strict=True))
    right = {name: pairs[name, name] for name in classes}
    sizes = dict.fromkeys(classes, 0)
    for (truth, guess), count in pairs.items():
        for name in (truth, guess):
            if name in sizes:
                sizes[name] += count
    f1 = sum(2 * right[name] / sizes[name] for name in classes) / len(classes)

    def influence(truth: str | None, guess: str | None) -> float:
        total = 2 / sizes[truth] if truth is not None and truth == guess else 0.0
        for name in (truth, guess):
            if name in sizes:
                total -= 2 * right[name] / sizes[name] ** 2
        return n / len(classes) * total

    known = {pair: f1 + influence(*pair) for pair in pairs}
    return [known[pair] for pair in zip(truths, predicted, strict=True)]
