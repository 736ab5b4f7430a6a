"""Metrics of one answer and its item: text in, numbers out.

Regular expressions, JSON Schema, BLEU, ROUGE, and what an answer must not contain: personal data, template markers,
invented web addresses.
"""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import orjson
from pydantic import TypeAdapter
from ruamel.yaml import YAML

from schemas.curation_steps import RedactionType
from schemas.metrics import (
    BleuMetric,
    ControlTokenMetric,
    JsonSchemaMetric,
    PersonalDataMetric,
    RegexMetric,
    RougeMetric,
    UrlMetric,
)
from tasks.assess.metric import Score, metric

_URL: tuple[RedactionType, ...] = ("url",)

_MARKERS = Path(__file__).with_name("template_markers.yaml")


@cache
def _markers() -> re.Pattern[str]:
    patterns = TypeAdapter(dict[str, re.Pattern[str]]).validate_python(YAML(typ="safe", pure=True).load(_MARKERS))
    return re.compile("|".join(pattern.pattern for pattern in patterns.values()))


def has_control_tokens(text: str) -> bool:
    """Return whether the text contains a marker that only a chat template may write.

    >>> has_control_tokens("Thanks.<|im_end|>"), has_control_tokens("a < b | c > d")
    (True, False)
    """
    return _markers().search(text) is not None


@metric(RegexMetric)
def regex(spec: RegexMetric) -> Score:
    pattern, wanted = re.compile(spec.pattern), spec.expect == "match"
    return lambda text, _item: float(bool(text.strip()) and (pattern.search(text) is not None) == wanted)


@metric(JsonSchemaMetric, libraries=("jsonschema", "orjson"))
def json_schema(spec: JsonSchemaMetric) -> Score:
    from jsonschema import Draft202012Validator
    from referencing import Registry

    validator = Draft202012Validator(spec.document, registry=Registry())  # an empty registry fetches nothing
    pattern = re.compile(spec.extract) if spec.extract else None

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


@metric(BleuMetric)
def bleu(_spec: BleuMetric) -> Score:
    from sacrebleu.metrics.bleu import BLEU

    scorer = BLEU(effective_order=True)

    def score(text: str, item: Mapping[str, object]) -> float:
        return float(scorer.sentence_score(text, [str(item.get("answer") or "")]).score) / 100

    return score


class _AnyScript:
    """A tokenizer for rouge-score: its own knows only a-z and 0-9, so that any other script would score 0."""

    def tokenize(self, text: str) -> list[str]:
        return re.findall(r"[^\W_]+", text.lower())


@metric(RougeMetric, libraries=("rouge-score",))
def rouge(spec: RougeMetric) -> Score:
    from rouge_score.rouge_scorer import RougeScorer

    kind = spec.variant.replace("_", "").replace("l", "L")
    scorer = RougeScorer([kind], tokenizer=_AnyScript())
    return lambda text, item: float(scorer.score(str(item.get("answer") or ""), text)[kind].fmeasure)


@metric(PersonalDataMetric, libraries=("phonenumbers", "python-stdnum"))
def personal_data(spec: PersonalDataMetric) -> Score:
    from tasks.curate.redaction.personal import find_personal

    return lambda text, _item: float(bool(find_personal(text, spec.types, region=spec.region)))


@metric(ControlTokenMetric)
def control_tokens(_spec: ControlTokenMetric) -> Score:
    return lambda text, _item: float(has_control_tokens(text))


@metric(UrlMetric)
def urls(_spec: UrlMetric) -> Score:
    return _invents_url


def _invents_url(text: str, item: Mapping[str, object]) -> float:
    from tasks.curate.redaction.personal import find_personal

    known = "\n".join(str(item.get(column) or "") for column in ("subject", "body", "answer")).casefold()
    found = (text[url.start : url.end].casefold() for url in find_personal(text, _URL))
    return float(any(url not in known for url in found))
