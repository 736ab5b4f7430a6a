"""Fill `personal_phrases.yaml`: sentences with one labelled value each, and sentences that hold nothing personal."""

import random
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import phonenumbers
from ruamel.yaml import YAML

Span = tuple[int, int, str]
Marked = tuple[str, list[Span]]
"""A text and its personal data."""
_SEED = 20260601
_SLOT = re.compile(r"\{(\w+)\}")


def read_phrases() -> dict[str, Any]:
    """The file; its head says what a group is."""
    path = Path(__file__).with_name("personal_phrases.yaml")
    return dict(YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8")))


def labelled_texts(kind: str, *, n_texts: int) -> list[Marked]:
    """Texts with one value of the kind each, every sentence about as often as the others."""
    return list(_texts(kind, "sentences", n_texts))


def decoy_texts(kind: str, *, n_texts: int) -> list[Marked]:
    """Texts with the words of the kind and nothing personal."""
    return list(_texts(kind, "decoys", n_texts))


def separated_texts(kind: str) -> list[Marked]:
    """Every sentence with every value of the kind, each separator between or inside its groups."""
    phrases = read_phrases()["separators"]
    spec = phrases[kind]
    values: list[str] = []
    for groups in spec["values"]:
        if "at" in spec:
            values += ["".join(groups).replace("@", at) for at in spec["at"]]
            values += [mark.join(groups) for mark in phrases["inside"]]
        else:
            values += [gap.join(groups) for gap in phrases["between"]]
            values += [mark.join("".join(groups)) for mark in phrases["inside"]]
            values += [f"{mark} ".join(groups) for mark in phrases["inside"]]
    return [_marked(sentence, value, kind) for value in values for sentence in spec["sentences"]]


def separator_decoys() -> list[Marked]:
    """Columns, tables and amounts with the same separators."""
    return [(text, []) for text in read_phrases()["separators"]["decoys"]]


def _texts(kind: str, of: str, n_texts: int) -> Iterator[Marked]:
    phrases = read_phrases()
    draw = random.Random(f"{_SEED} {kind} {of}")  # noqa: S311
    sentences = [(group, sentence) for group in phrases[kind] for sentence in group.get(of, ())]
    for number in range(max(n_texts, len(sentences))):
        group, sentence = sentences[number % len(sentences)]
        words = phrases["words"] | group.get("words", {})
        value = _value(group, words, draw)
        for slot in {slot for slot in _SLOT.findall(sentence) if slot != "value"}:
            sentence = sentence.replace(f"{{{slot}}}", draw.choice(words[slot]))
        yield _marked(sentence, value, kind) if of == "sentences" else (sentence.replace("{value}", value), [])


def _marked(sentence: str, value: str, kind: str) -> Marked:
    before, _, after = sentence.partition("{value}")
    return before + value + after, [(len(before), len(before) + len(value), kind)]


def _value(group: Mapping[str, Any], words: Mapping[str, list[str]], draw: random.Random) -> str:
    if "values" in group:
        return str(draw.choice(group["values"]))
    while True:
        value = _filled(draw.choice(group["formats"]), words, draw)
        if "region" not in group or _is_valid(value, group["region"]):
            return value


def _filled(form: str, words: Mapping[str, list[str]], draw: random.Random) -> str:
    marks = {"#": "0123456789", "?": "ABCDEFGHJKLMNPRSTUVWXYZ", "~": "0123456789abcdef"}
    # Marks first: the words themselves may contain "#".
    form = "".join(draw.choice(marks[mark]) if mark in marks else mark for mark in form)
    return _SLOT.sub(lambda slot: str(draw.choice(words[slot[1]])), form)


def _is_valid(number: str, region: str) -> bool:
    return phonenumbers.is_valid_number(phonenumbers.parse(number, region))
