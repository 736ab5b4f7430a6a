"""Writes `items.jsonl` anew: general questions with answers that a pattern can check, from tables and a fixed seed.

Run by a person who changes the suite (`python -m tasks.assess.suites.general.make`), never by a pipeline. Whole
families of questions were left out where the small embedded base model is right hardly ever; single items never were:
a suite of what one base happens to get right would call every other model worse.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

import orjson

from tasks.assess.suites.general import tables
from tasks.files import write_atomic

Item = tuple[str, str, str]
"""Question, wanted answer, pattern that a right answer holds (ignoring case)."""
FAMILIES = {
    "facts": ("body", "capital", "common", "continent", "country", "language", "opposite"),
    "arithmetic": ("add", "after", "double", "subtract"),
    "instruction": ("choose", "finish", "repeat", "say", "yes_no"),
    "format": ("brackets", "json", "list", "past", "plural", "quotes"),
}
"""Kind of skill -> its families of questions."""


def make_items(seed: int = 20260601) -> list[dict[str, str]]:
    """Every item: item_id (`facts-capital-03`), kind, question, answer, pattern; in the order of ids."""
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
    """Write the file beside this one."""
    lines = [orjson.dumps(item).decode() for item in make_items()]
    write_atomic(Path(__file__).with_name("items.jsonl"), ("\n".join(lines) + "\n").encode())


def _word(text: str) -> str:
    return rf"\b{re.escape(text)}\b"


def _number(value: int) -> str:
    return rf"(?<![\d.]){value}(?![\d]|\.\d)"


def _pairs(table: str) -> list[tuple[str, str]]:
    return [(left.strip(), right.strip()) for left, _, right in (each.partition(":") for each in table.split(";"))]


def _capital(_chance: random.Random) -> Iterator[Item]:
    for country, city in _pairs(tables.CAPITALS):
        yield f"What is the capital of {country}?", city, _word(city)


def _opposite(_chance: random.Random) -> Iterator[Item]:
    for word, other in _pairs(tables.OPPOSITES):
        yield f'What is the opposite of "{word}"? Answer with one word.', other, _word(other)


def _continent(_chance: random.Random) -> Iterator[Item]:
    for country, continent in _pairs(tables.CONTINENTS):
        yield f"On which continent is {country}?", continent, _word(continent)


def _country(_chance: random.Random) -> Iterator[Item]:
    for country, city in _pairs(tables.CAPITALS)[:24]:
        yield f"In which country is the city of {city}?", country, _word(country.removeprefix("the "))


def _language(_chance: random.Random) -> Iterator[Item]:
    for country, language in _pairs(tables.LANGUAGES):
        yield f"Which language do people speak in {country}?", language, _word(language)


def _body(_chance: random.Random) -> Iterator[Item]:
    for act, part in _pairs(tables.SENSES):
        yield f"Which part of the body do we use to {act}?", part, rf"\b{part}"


def _common(_chance: random.Random) -> Iterator[Item]:
    for question, answer in _pairs(tables.COMMON):
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
    for word in tables.WORDS.split()[:40]:
        yield f'Repeat this word exactly: "{word}"', word, _word(word)


def _choose(chance: random.Random) -> Iterator[Item]:
    for thing, (kind, other) in tables.KINDS.items():
        for name in thing.split():
            first, second = chance.sample([kind, other], 2)
            yield f"Is a {name} {first} or {second}? Answer with one word.", kind, rf"{_word(kind.split()[-1])}"


def _say(_chance: random.Random) -> Iterator[Item]:
    for sentence in tables.SENTENCES.split(";"):
        yield f"Repeat this sentence: {sentence}", sentence, _word(sentence.rstrip("."))


def _yes_no(_chance: random.Random) -> Iterator[Item]:
    for statement, answer in _pairs(tables.YES_NO):
        yield f"{statement}? Answer yes or no.", answer, rf"^\W*{answer}\b"


def _finish(_chance: random.Random) -> Iterator[Item]:
    for start, end in _pairs(tables.SAYINGS):
        yield f'Finish the saying: "{start} ..."', end, _word(end)


def _brackets(_chance: random.Random) -> Iterator[Item]:
    for word in tables.WORDS.split()[82:]:
        yield f"Write the word {word} in square brackets, like this: [{word}]", f"[{word}]", rf"\[\s*{word}\s*\]"


def _json(chance: random.Random) -> Iterator[Item]:
    for word in tables.WORDS.split()[20:45]:
        number = chance.randint(1, 99)
        wanted = f'{{"{word}": {number}}}'
        yield f"Repeat this JSON and nothing else: {wanted}", wanted, rf'\{{\s*"{word}"\s*:\s*"?{number}\b'


def _list(chance: random.Random) -> Iterator[Item]:
    words = tables.WORDS.split()
    for _ in range(25):
        three = chance.sample(words, 3)
        told = ", ".join(three)
        yield f"Repeat this list: {told}", told, r"\W+(?:\d\W+|and\s+)?".join(three)


def _quotes(_chance: random.Random) -> Iterator[Item]:
    for word in tables.WORDS.split()[:25]:
        yield f"Write the word {word} in quotation marks.", f'"{word}"', rf'["“]{word}["”.,]'


def _past(_chance: random.Random) -> Iterator[Item]:
    for now, past in _pairs(tables.PASTS):
        yield f'What is the past tense of the verb "{now}"?', past, rf"\b(?:{past})\b"


def _plural(_chance: random.Random) -> Iterator[Item]:
    for one, many in _pairs(tables.PLURALS):
        yield f'What is the plural of "{one}"?', many, _word(many)


if __name__ == "__main__":
    main()
