"""Scores one answer by the declared metrics that need nothing but that answer and its item: text in, numbers out.

Regular expressions, JSON Schema, BLEU, ROUGE, and what an answer must not hold: personal data, template markers,
invented web addresses. Knows nothing of files or models; `tasks/assess/score.py` asks, per answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from schemas.curation_steps import RedactionType
from schemas.metrics import (
    BleuMetric,
    ControlTokenMetric,
    EntryPointMetric,
    JsonSchemaMetric,
    MetricSpec,
    PersonalDataMetric,
    RegexMetric,
    RougeMetric,
    UrlMetric,
)
from tasks.assess.fields import MAX_SCORED_CHARS
from tasks.assess.user_metrics import load_entry_point

_URL: tuple[RedactionType, ...] = ("url",)
Score = Callable[[str, Mapping[str, object]], float]

# Markers of the templates in use: ChatML and Llama 3 (<|...|>), Llama 2 ([INST], <<SYS>>, <s>), Gemma
# (<start_of_turn>), DeepSeek (full-width bars), BERT and T5 style (<pad>, <unk>, [SEP]).
_CONTROL = re.compile(
    r"<\|[^|<>\s]{1,40}\|>|<｜[^｜<>]{1,40}｜>|\[/?INST\]|<</?SYS>>|</?s>|<(?:start|end)_of_turn>"
    r"|<(?:pad|unk|bos|eos|mask)>|\[(?:PAD|UNK|CLS|SEP|MASK)\]"
)


class DeclaredMetrics:
    """The metrics of `evaluate.metrics` that score one answer at a time."""

    def __init__(self, metrics: Sequence[MetricSpec]) -> None:
        scorers = ((metric, _scorer(metric)) for metric in metrics)
        self._scores = [(metric.traits().name, score) for metric, score in scorers if score is not None]

    def score(self, text: str, item: Mapping[str, object]) -> dict[str, float]:
        """Metric -> value of this answer."""
        text = text[:MAX_SCORED_CHARS]
        return {name: score(text, item) for name, score in self._scores}


def has_control_tokens(text: str) -> bool:
    """Does the text spell out a marker that only a chat template may write?

    >>> has_control_tokens("Thanks.<|im_end|>"), has_control_tokens("a < b | c > d")
    (True, False)
    """
    return _CONTROL.search(text) is not None


def _scorer(metric: MetricSpec) -> Score | None:
    match metric:
        case RegexMetric():
            return _regex(metric)
        case JsonSchemaMetric():
            return _json_schema(metric)
        case BleuMetric():
            return _bleu()
        case RougeMetric():
            return _rouge(metric)
        case PersonalDataMetric():
            return _personal_data(metric)
        case ControlTokenMetric():
            return lambda text, _item: float(has_control_tokens(text))
        case UrlMetric():
            return _urls
        case EntryPointMetric():
            return load_entry_point(metric.name)
        case _:
            return None  # of all answers together


def _regex(metric: RegexMetric) -> Score:
    pattern, wanted = re.compile(metric.pattern), metric.expect == "match"
    return lambda text, _item: float(bool(text.strip()) and (pattern.search(text) is not None) == wanted)


def _json_schema(metric: JsonSchemaMetric) -> Score:
    import orjson
    from jsonschema import Draft202012Validator
    from referencing import Registry

    validator = Draft202012Validator(metric.document, registry=Registry())  # an empty registry fetches nothing
    pattern = re.compile(metric.extract) if metric.extract else None

    def score(text: str, _item: Mapping[str, object]) -> float:
        found = pattern.search(text) if pattern else None
        if pattern and found is None:
            return 0.0
        part = text if found is None else (found.group(1) if found.re.groups else found.group())
        try:
            return float(validator.is_valid(orjson.loads(part or "")))
        except (orjson.JSONDecodeError, RecursionError):
            return 0.0

    return score


def _bleu() -> Score:
    from sacrebleu.metrics.bleu import BLEU

    bleu = BLEU(effective_order=True)

    def score(text: str, item: Mapping[str, object]) -> float:
        return float(bleu.sentence_score(text, [str(item.get("answer") or "")]).score) / 100

    return score


class _AnyScript:
    """Words of rouge-score: its own tokenizer knows a-z and 0-9 alone, and any other script would be worth 0."""

    def tokenize(self, text: str) -> list[str]:
        return re.findall(r"[^\W_]+", text.lower())


def _rouge(metric: RougeMetric) -> Score:
    from rouge_score.rouge_scorer import RougeScorer

    kind = metric.variant.replace("_", "").replace("l", "L")
    scorer = RougeScorer([kind], tokenizer=_AnyScript())
    return lambda text, item: float(scorer.score(str(item.get("answer") or ""), text)[kind].fmeasure)


def _personal_data(metric: PersonalDataMetric) -> Score:
    from tasks.curate.redaction.personal import find_personal

    return lambda text, _item: float(bool(find_personal(text, metric.types, region=metric.region)))


def _urls(text: str, item: Mapping[str, object]) -> float:
    from tasks.curate.redaction.personal import find_personal

    known = "\n".join(str(item.get(column) or "") for column in ("subject", "body", "answer")).casefold()
    found = (text[url.start : url.end].casefold() for url in find_personal(text, _URL))
    return float(any(url not in known for url in found))
