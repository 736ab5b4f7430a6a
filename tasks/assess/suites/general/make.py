"""Write `items.jsonl`: general questions with answers that a pattern can check, from `tables.yaml` and a fixed seed.

Run it after changing the suite (`python -m tasks.assess.suites.general.make`); a pipeline never does. Whole families of
questions were left out if the small embedded base model is almost never right, but no single items: a suite of what one
base happens to get right would favour it over every other model.
"""

import random
import re
from collections.abc import Iterator
from pathlib import Path

import orjson
from pydantic import Field
from ruamel.yaml import YAML

from schemas.spec import Spec
from tasks.files import write_atomic

Item = tuple[str, str, str]
"""Question, reference answer, pattern of a right answer (ignoring case)."""
FAMILIES = {
    "facts": ("body", "capital", "common", "continent", "country", "language", "opposite"),
    "arithmetic": ("add", "after", "double", "subtract"),
    "instruction": ("choose", "finish", "repeat", "say", "yes_no"),
    "format": ("brackets", "json", "list", "past", "plural", "quotes"),
}
"""Skill -> its families of questions."""


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
        for family in families:
            chance = random.Random(f"{seed}:{family}")  # noqa: S311
            made = list(globals()[f"_{family}"](chance))
            for number, (question, answer, pattern) in enumerate(made):
                re.compile(pattern)
                items.append(
                    {
                        "item_id": f"{kind}-{family}-{number:02}",
                        "kind": kind,
                        "question": question,
                        "answer": answer,
                        "pattern": pattern,
                    }
                )
    return sorted(items, key=lambda item: item["item_id"])


def main() -> None:
    """Write `items.jsonl` next to this file."""
    lines = [orjson.dumps(item).decode() for item in make_items()]
    write_atomic(Path(__file__).with_name("items.jsonl"), ("\n".join(lines) + "\n").encode())


def _word(text: str) -> str:
    return rf"\b{re.escape(text)}\b"


def _number(value: int) -> str:
    return rf"(?<![\d.]){value}(?![\d]|\.\d)"


def _capital(_chance: random.Random) -> Iterator[Item]:
    for country, city in TABLES.capitals.items():
        yield f"What is the capital of {country}?", city, _word(city)


def _opposite(_chance: random.Random) -> Iterator[Item]:
    for word, other in TABLES.opposites.items():
        yield f'What is the opposite of "{word}"? Answer with one word.', other, _word(other)


def _continent(_chance: random.Random) -> Iterator[Item]:
    for country, continent in TABLES.continents.items():
        yield f"On which continent is {country}?", continent, _word(continent)


def _country(_chance: random.Random) -> Iterator[Item]:
    for country, city in list(TABLES.capitals.items())[:24]:
        yield f"In which country is the city of {city}?", country, _word(country.removeprefix("the "))


def _language(_chance: random.Random) -> Iterator[Item]:
    for country, language in TABLES.languages.items():
        yield f"Which language do people speak in {country}?", language, _word(language)


def _body(_chance: random.Random) -> Iterator[Item]:
    for act, part in TABLES.senses.items():
        yield f"Which part of the body do we use to {act}?", part, rf"\b{part}"


def _common(_chance: random.Random) -> Iterator[Item]:
    for question, answer in TABLES.common.items():
        yield f"{question}?", re.sub(r"\(\?:[^)]*\)\??|\\b", "", answer).split("|")[0], rf"\b(?:{answer})"


def _add(chance: random.Random) -> Iterator[Item]:
    pairs = [(a, b) for a in range(1, 10) for b in range(1, 10)]
    for a, b in chance.sample(pairs, 30):
        yield f"What is {a} + {b}?", str(a + b), _number(a + b)


def _subtract(chance: random.Random) -> Iterator[Item]:
    pairs = [(a, b) for a in range(2, 13) for b in range(1, a)]
    for a, b in chance.sample(pairs, 25):
        yield f"What is {a} - {b}?", str(a - b), _number(a - b)


def _after(chance: random.Random) -> Iterator[Item]:
    for number in chance.sample(range(1, 60), 25):
        yield f"Which number comes right after {number}?", str(number + 1), _number(number + 1)


def _double(chance: random.Random) -> Iterator[Item]:
    for number in chance.sample(range(1, 21), 15):
        yield f"What is {number} times 2?", str(2 * number), _number(2 * number)


def _repeat(_chance: random.Random) -> Iterator[Item]:
    for word in TABLES.words[:40]:
        yield f'Repeat this word exactly: "{word}"', word, _word(word)


def _choose(chance: random.Random) -> Iterator[Item]:
    for each in TABLES.kinds:
        for name in each.things:
            first, second = chance.sample([each.kind, each.other], 2)
            yield f"Is a {name} {first} or {second}? Answer with one word.", each.kind, _word(each.kind.split()[-1])


def _say(_chance: random.Random) -> Iterator[Item]:
    for sentence in TABLES.sentences:
        yield f"Repeat this sentence: {sentence}", sentence, _word(sentence.rstrip("."))


def _yes_no(_chance: random.Random) -> Iterator[Item]:
    for statement, answer in TABLES.yes_no.items():
        yield f"{statement}? Answer yes or no.", answer, rf"^\W*{answer}\b"


def _finish(_chance: random.Random) -> Iterator[Item]:
    for start, end in TABLES.sayings.items():
        yield f'Finish the saying: "{start} ..."', end, _word(end)


def _brackets(_chance: random.Random) -> Iterator[Item]:
    for word in TABLES.words[82:]:
        yield f"Write the word {word} in square brackets, like this: [{word}]", f"[{word}]", rf"\[\s*{word}\s*\]"


def _json(chance: random.Random) -> Iterator[Item]:
    for word in TABLES.words[20:45]:
        number = chance.randint(1, 99)
        wanted = f'{{"{word}": {number}}}'
        yield f"Repeat this JSON and nothing else: {wanted}", wanted, rf'\{{\s*"{word}"\s*:\s*"?{number}\b'


def _list(chance: random.Random) -> Iterator[Item]:
    for _ in range(25):
        three = chance.sample(TABLES.words, 3)
        listed = ", ".join(three)
        yield f"Repeat this list: {listed}", listed, r"\W+(?:\d\W+|and\s+)?".join(three)


def _quotes(_chance: random.Random) -> Iterator[Item]:
    for word in TABLES.words[:25]:
        yield f"Write the word {word} in quotation marks.", f'"{word}"', rf'["“]{word}["”.,]'


def _past(_chance: random.Random) -> Iterator[Item]:
    for now, past in TABLES.pasts.items():
        yield f'What is the past tense of the verb "{now}"?', past, rf"\b(?:{past})\b"


def _plural(_chance: random.Random) -> Iterator[Item]:
    for one, many in TABLES.plurals.items():
        yield f'What is the plural of "{one}"?', many, _word(many)


if __name__ == "__main__":
    main()
