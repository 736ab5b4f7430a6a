"""Write `items.jsonl`: general questions with answers that a pattern can check, from `tables.yaml` and a fixed seed.

Run it after changing the suite (`python -m tasks.assess.suites.general.make`); a pipeline never does. Whole families of
questions were left out if the small embedded base model is almost never right, but no single items: a suite of what one
base happens to get right would favour it over every other model.
"""

import itertools
import operator
import random
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import orjson
from pydantic import Field
from ruamel.yaml import YAML

from schemas.spec import Spec
from tasks.storage.files import write_atomic

Item = tuple[str, str, str]
"""Question, reference answer, pattern of a right answer (ignoring case)."""
Family = Callable[[random.Random], Iterable[Item]]


class Things(Spec):
    """Things of one kind, for a choice between two kinds."""

    kind: str = Field(alias="is")
    other: str = Field(alias="is_not")
    things: tuple[str, ...] = Field(min_length=1)


Pairs = dict[str, str]


class Tables(Spec):
    """`tables.yaml`; its comments say what the pairs are."""

    capitals: Pairs
    opposites: Pairs
    continents: Pairs
    languages: Pairs
    pasts: Pairs
    senses: Pairs
    common: Pairs
    yes_no: Pairs
    sayings: Pairs
    plurals: Pairs
    kinds: tuple[Things, ...]
    sentences: tuple[str, ...]
    words: tuple[str, ...] = Field(min_length=100)


TABLES = Tables.model_validate(YAML(typ="safe", pure=True).load(Path(__file__).with_name("tables.yaml")))


def make_items(seed: int = 20260601) -> list[dict[str, str]]:
    """Every item: item_id (`facts-capital-03`), kind, question, answer, pattern; ordered by id."""
    items = []
    for kind, families in FAMILIES.items():
        for family, make in families.items():
            made = make(random.Random(f"{seed}:{family}"))  # noqa: S311
            for number, (question, answer, pattern) in enumerate(made):
                re.compile(pattern)
                named = {"item_id": f"{kind}-{family}-{number:02}", "kind": kind}
                items.append(named | {"question": question, "answer": answer, "pattern": pattern})
    return sorted(items, key=lambda item: item["item_id"])


def main() -> None:
    """Write `items.jsonl` next to this file."""
    lines = [orjson.dumps(item).decode() for item in make_items()]
    write_atomic(Path(__file__).with_name("items.jsonl"), ("\n".join(lines) + "\n").encode())


def _word(text: str) -> str:
    return rf"\b{re.escape(text)}\b"


def _number(value: int) -> str:
    return rf"(?<![\d.]){value}(?![\d]|\.\d)"


def _asked(question: str, pairs: Mapping[str, str], pattern: Callable[[str], str] = _word) -> Family:
    """The question about each key, answered by its value."""
    return lambda _chance: ((question.format(key), value, pattern(value)) for key, value in pairs.items())


def _same(words: Iterable[str]) -> Pairs:
    return {word: word for word in words}


def _summed(question: str, numbers: Iterable[tuple[int, int]], n: int, result: Callable[[int, int], int]) -> Family:
    """The question about `n` of these pairs of numbers."""
    pairs = list(numbers)

    def make(chance: random.Random) -> Iterable[Item]:
        for pair in chance.sample(pairs, n):
            yield question.format(*pair), str(result(*pair)), _number(result(*pair))

    return make


def _common(_chance: random.Random) -> Iterable[Item]:
    for question, answer in TABLES.common.items():
        yield f"{question}?", re.sub(r"\(\?:[^)]*\)\??|\\b", "", answer).split("|")[0], rf"\b(?:{answer})"


def _choose(chance: random.Random) -> Iterable[Item]:
    for each in TABLES.kinds:
        for name in each.things:
            first, second = chance.sample([each.kind, each.other], 2)
            yield f"Is a {name} {first} or {second}? Answer with one word.", each.kind, _word(each.kind.split()[-1])


def _json(chance: random.Random) -> Iterable[Item]:
    for word in TABLES.words[20:45]:
        number = chance.randint(1, 99)
        wanted = f'{{"{word}": {number}}}'
        yield f"Repeat this JSON and nothing else: {wanted}", wanted, rf'\{{\s*"{word}"\s*:\s*"?{number}\b'


def _list(chance: random.Random) -> Iterable[Item]:
    for _ in range(25):
        three = chance.sample(TABLES.words, 3)
        listed = ", ".join(three)
        yield f"Repeat this list: {listed}", listed, r"\W+(?:\d\W+|and\s+)?".join(three)


FAMILIES: dict[str, dict[str, Family]] = {
    "facts": {
        "body": _asked("Which part of the body do we use to {}?", TABLES.senses, lambda part: rf"\b{part}"),
        "capital": _asked("What is the capital of {}?", TABLES.capitals),
        "common": _common,
        "continent": _asked("On which continent is {}?", TABLES.continents),
        "country": _asked(
            "In which country is the city of {}?",
            {city: country for country, city in list(TABLES.capitals.items())[:24]},
            lambda country: _word(country.removeprefix("the ")),
        ),
        "language": _asked("Which language do people speak in {}?", TABLES.languages),
        "opposite": _asked('What is the opposite of "{}"? Answer with one word.', TABLES.opposites),
    },
    "arithmetic": {
        "add": _summed("What is {} + {}?", itertools.product(range(1, 10), range(1, 10)), 30, operator.add),
        "after": _summed("Which number comes right after {}?", ((n, 1) for n in range(1, 60)), 25, operator.add),
        "double": _summed("What is {} times 2?", ((n, 2) for n in range(1, 21)), 15, operator.mul),
        "subtract": _summed("What is {} - {}?", ((a, b) for a in range(2, 13) for b in range(1, a)), 25, operator.sub),
    },
    "instruction": {
        "choose": _choose,
        "finish": _asked('Finish the saying: "{} ..."', TABLES.sayings),
        "repeat": _asked('Repeat this word exactly: "{}"', _same(TABLES.words[:40])),
        "say": _asked("Repeat this sentence: {}", _same(TABLES.sentences), lambda said: _word(said.rstrip("."))),
        "yes_no": _asked("{}? Answer yes or no.", TABLES.yes_no, lambda answer: rf"^\W*{answer}\b"),
    },
    "format": {
        "brackets": _asked(
            "Write the word {0} in square brackets, like this: [{0}]",
            {word: f"[{word}]" for word in TABLES.words[82:]},
            lambda wanted: rf"\[\s*{wanted[1:-1]}\s*\]",
        ),
        "json": _json,
        "list": _list,
        "past": _asked('What is the past tense of the verb "{}"?', TABLES.pasts, lambda past: rf"\b(?:{past})\b"),
        "plural": _asked('What is the plural of "{}"?', TABLES.plurals),
        "quotes": _asked(
            "Write the word {} in quotation marks.",
            {word: f'"{word}"' for word in TABLES.words[:25]},
            lambda wanted: rf'["“]{wanted[1:-1]}["”.,]',
        ),
    },
}
"""Skill -> its families of questions."""


if __name__ == "__main__":
    main()
