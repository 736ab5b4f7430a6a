"""The tickets of the curation benchmark: readable support English with threads, replies, duplicates and personal data.

Of the tickets about 6 % repeat an earlier one word for word, 10 % with a few words changed, 4 % are in another
language, 15 % hold personal data, a third continue a thread; a customer writes within a few weeks of the year. 1 % each
shout, are too short, have a reply that answers nothing, or one with an unfilled placeholder. Equal seeds give equal
rows. It knows nothing of the steps. Called by `benchmarks/curate.py`.
"""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from benchmarks import lexicon

VERSION = 1
SEED = 20260601
_START = datetime(2026, 1, 1)
_SLOT = re.compile(r"\{(\w+)\}")
_CARDS = ("4111 1111 1111 1111", "5555 5555 5555 4444", "4242424242424242", "3782 822463 10005")
_IBANS = ("DE89 3704 0044 0532 0130 00", "GB82 WEST 1234 5698 7654 32", "FR14 2004 1010 0505 0001 3M02 606")
_CATEGORIES = ("billing", "delivery", "returns", "account", "technical", "cancellation")
Row = dict[str, object]


class Writer:
    """Writes rows in the order of their time."""

    def __init__(self, n_tickets: int, *, seed: int = SEED) -> None:
        self._generator = np.random.Generator(np.random.PCG64(seed))
        self._numbers: list[float] = []
        self._n_tickets = n_tickets
        self._slots = {name: told.split("|") for name, told in lexicon.SLOTS.items()}
        self._slots["name"] = lexicon.NAMES.split("|")
        self._slots["card"], self._slots["iban"] = list(_CARDS), list(_IBANS)

    def rows(self) -> list[Row]:
        """All rows; a copy repeats one of the 2,000 tickets before it."""
        rows: list[Row] = []
        for number in range(self._n_tickets):
            row = self._new(number)
            if number > 100:
                earlier = rows[max(0, number - 2000) + self._below(min(number, 2000))]
                fate = self._chance()
                if fate < 0.16:
                    body = str(earlier["body"])
                    row |= {"subject": earlier["subject"], "body": body if fate < 0.06 else self._reworded(body)}
                elif fate < 0.45:
                    row |= {"thread_id": earlier["thread_id"], "customer_id": earlier["customer_id"]}
            rows.append(self._spoiled(row))
        return rows

    def _spoiled(self, row: Row) -> Row:
        """What the steps length and quality are there for."""
        fault = self._chance()
        if fault < 0.01:
            return row | {"body": str(row["body"]).upper()}
        if fault < 0.02:
            return row | {"body": self._pick(("help", "see above", "Call me please", "???"))}
        if fault < 0.03:
            return row | {"reply": self._pick(("Done.", "Closed.", "See above."))}
        if fault < 0.04:
            return row | {"reply": f"Dear {{{{first_name}}}}, {row['reply']}"}
        return row

    def _new(self, number: int) -> Row:
        created = _START + timedelta(seconds=int(number * 365 * 86_400 / self._n_tickets))
        return {
            "ticket_id": f"T-{number:07d}",
            # A few hundred customers are active at a time.
            "customer_id": f"C-{number // 40 * 10 + self._below(400):06d}",
            "thread_id": f"TH-{number:07d}",
            "created_at": created.isoformat(),
            "updated_at": (created + timedelta(hours=1 + self._below(72))).isoformat(),
            "product": self._pick(self._slots["noun"]).title(),
            "channel": self._pick(["mail", "mail", "chat", "web"]),
            "subject": self._fill(self._pick(["{noun} {fault}", "{quality} {noun}", "Question about my {noun}"])),
            "body": self._body(),
            "reply": " ".join(self._some(lexicon.REPLIES, 5)) if self._chance() > 0.03 else None,
            "category": self._pick(_CATEGORIES),
            "priority": self._pick(("low", "normal", "normal", "high")),
            "reference": f"NB-{10_000 + self._below(90_000)}",
        }

    def _body(self) -> str:
        if self._chance() < 0.04:
            return " ".join(self._some(lexicon.OTHER_LANGUAGES[self._pick(("de", "fr", "es"))], 6))
        sentences = []
        n_words, goal = 0, 40 + self._below(110)
        while n_words < goal:
            is_stock = self._chance() < 0.12
            sentences += self._some(lexicon.STOCK if is_stock else lexicon.SENTENCES, 1)
            n_words += sentences[-1].count(" ") + 1
        if self._chance() < 0.15:
            sentences.insert(1 + self._below(len(sentences)), *self._some(lexicon.PERSONAL, 1))
        text = " ".join(sentences)
        if self._chance() < 0.7:
            text = f"{self._pick(lexicon.GREETINGS.split('|'))}\n\n{text}"
        if self._chance() < 0.6:
            text = f"{text}\n\n{self._some(lexicon.SIGNATURES, 1)[0]}"
        if self._chance() < 0.1:
            text = f"{text}\n\nOn Monday our care team wrote:\n> " + "\n> ".join(self._some(lexicon.REPLIES, 4))
        return text

    def _some(self, told: str, n: int) -> list[str]:
        choices = told.split("|")
        filled = (self._fill(self._pick(choices)) for _ in range(n))
        return [text[0].upper() + text[1:] for text in filled]

    def _fill(self, text: str) -> str:
        def chosen(slot: re.Match[str]) -> str:
            name = slot[1]
            if name in self._slots:
                return self._fill(self._pick(self._slots[name]))
            if name == "number":
                return str(2 + self._below(900))
            if name == "key":
                return "".join(self._pick("abcdefghjkmnpqrstuvwxyz23456789") for _ in range(24))
            if name == "email":
                return f"{self._pick(self._slots['name']).lower().replace(' ', '.')}{self._below(999)}@mail.example"
            if name == "phone":
                return f"+1 202 555 {self._below(10_000):04d}"
            return ".".join(str(1 + self._below(254)) for _ in range(4))

        return _SLOT.sub(chosen, text)

    def _reworded(self, text: str) -> str:
        words = text.split(" ")
        for _ in range(1 + self._below(6)):
            words[self._below(len(words))] = self._pick(self._slots["quality"])
        return " ".join(words)

    def _chance(self) -> float:
        if not self._numbers:
            self._numbers = self._generator.random(65_536).tolist()
        return self._numbers.pop()

    def _below(self, n: int) -> int:
        return int(self._chance() * n)

    def _pick(self, choices: list[str] | tuple[str, ...] | str) -> str:
        return choices[self._below(len(choices))]


def ticket_files(n_tickets: int, folder: Path) -> tuple[Path, Path]:
    """The same tickets as Parquet and as JSON Lines, made at the first call."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths = tuple(folder / f"tickets-{n_tickets}-v{VERSION}.{kind}" for kind in ("parquet", "jsonl"))
    if not all(path.exists() for path in paths):
        rows = Writer(n_tickets).rows()
        lines = paths[1].with_suffix(".part")
        with lines.open("w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        lines.rename(paths[1])
        part = paths[0].with_suffix(".part")
        pq.write_table(pa.Table.from_pylist(rows), part, compression="zstd")
        part.rename(paths[0])
    return paths[0], paths[1]
