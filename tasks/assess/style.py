"""Check an answer against the declared rules of the house style, and how many train replies have the declared form."""

import re
from collections.abc import Callable, Sequence

import pyarrow.parquet as pq

from schemas.artifacts import Splits
from schemas.evaluation import EvaluateSpec, StyleRule
from tasks.assess.fields import MAX_SCORED_CHARS, FieldPattern
from tasks.assess.items import reference_answer

# Sentence ends: . ! ?, those of Arabic, Urdu and Hindi, or an ellipsis, closing quotes and brackets, then a space or
# the end ("3.5" does not end one); full-width marks end one without a space; an empty line ends one unless a comma
# precedes it ("Hi Ann,").
_SENTENCE_END = re.compile(r"[.!?…؟۔।]+[\"'”’»)\]]*(?=\s|$)|[。！？]+|(?<![,\s])(?=[^\S\n]*\n[^\S\n]*\n)")


def first_sentence(text: str) -> str:
    """The text up to and including its first sentence end; all of it without one.

    >>> first_sentence("Hi Ann,\\n\\nI am sorry that 3.5 kg are missing! We will look.")
    'Hi Ann,\\n\\nI am sorry that 3.5 kg are missing!'
    """
    text = text.strip()
    end = _SENTENCE_END.search(text)
    return text[: end.end()] if end else text


def last_line(text: str) -> str:
    """The last line that is not blank, stripped; empty for an empty text.

    >>> last_line("Sorry.\\n  Northbeam Care \\n\\n")
    'Northbeam Care'
    """
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""


_SCOPES: dict[str, Callable[[str], str]] = {
    "reply": str.strip,
    "first_sentence": first_sentence,
    "last_line": last_line,
}


class HouseStyle:
    """The rules of `evaluate.style`, compiled."""

    def __init__(self, rules: Sequence[StyleRule]) -> None:
        self._rules = [(rule, re.compile(rule.pattern)) for rule in rules]

    def score(self, text: str) -> dict[str, float]:
        """0 or 1 for `style` (all rules pass) and `style_<rule>`; empty without declared rules.

        A rule passes if its pattern is found in its scope, or with `expect: absent` if it is not. An empty answer
        passes no rule.
        """
        if not self._rules:
            return {}
        text = text[:MAX_SCORED_CHARS].strip()
        passed = {
            f"style_{rule.name}": float(
                bool(text) and (pattern.search(_SCOPES[rule.scope](text)) is not None) == (rule.expect == "match")
            )
            for rule, pattern in self._rules
        }
        return {"style": float(all(passed.values())), **passed}


def form_shares(splits: Splits, evaluate: EvaluateSpec, *, answer: str) -> dict[str, float]:
    """Shares of the train replies: `format`, with the pattern of `evaluate.fields` exactly once; `style`, that follow
    every rule of the house style. What is not declared is left out.

    Args:
        answer: Template of the reply, `train.prompt.answer`.
    """
    pattern = FieldPattern(evaluate.fields) if evaluate.fields else None
    style = HouseStyle(evaluate.style) if evaluate.style else None
    n, in_form, in_style = 0, 0.0, 0.0
    for batch in pq.ParquetFile(splits.train).iter_batches(batch_size=1024):
        for row in batch.to_pylist():
            text = reference_answer(answer, row)
            n += 1
            in_form += pattern.score(text, row)["format"] if pattern else 0.0
            in_style += style.score(text)["style"] if style else 0.0
    found = {"format": in_form / n if n and pattern else None, "style": in_style / n if n and style else None}
    return {name: share for name, share in found.items() if share is not None}
