"""The tickets of `bench-curate` and `bench-scale`: readable support English, threads, duplicates, personal data.

About 6 % of the tickets repeat an earlier one word for word, 10 % with a few words changed, 4 % are in another
language, 15 % contain personal data, a third continue a thread; a customer writes within a few weeks of the year. 1 %
each are in capitals, are too short, have a reply that answers nothing, or one with an unfilled placeholder. Equal seeds
give equal rows. `scale_table` makes any number from 200,000: each dialect is the same tickets with its own suffix on
all words of six or more letters, except those of greetings and signatures, so near duplicates stay within a dialect, at
the same share, and dialects share only runs of short words. The phrases are in `phrases.yaml`; the shipped help desk
(`source.kind: generated`) writes texts of a third of the length. Knows nothing of the steps.
"""

import json
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import report
from schemas.artifacts import RowCounts, TicketTable

VERSION = 1
SEED = 20260601
_START = datetime(2026, 1, 1)
_SLOT = re.compile(r"\{(\w+)\}")
_CARDS = ("4111 1111 1111 1111", "5555 5555 5555 4444", "4242424242424242", "3782 822463 10005")
_IBANS = ("DE89 3704 0044 0532 0130 00", "GB82 WEST 1234 5698 7654 32", "FR14 2004 1010 0505 0001 3M02 606")
_CATEGORIES = ("billing", "delivery", "returns", "account", "technical", "cancellation")
N_BASE = 200_000
BATCH_ROWS = 50_000
KEPT = "regards|sincerely|thanks|cheers|greetings|wishes|grüßen|saludos|cordialement"
"""Words that mark the parts of a message: no dialect changes them."""
Row = dict[str, object]


@cache
def phrases() -> dict[str, Any]:
    """Words by slot, and sentences by kind."""
    from ruamel.yaml import YAML

    return YAML(typ="safe").load(Path(__file__).with_name("phrases.yaml"))


class Writer:
    """Writes rows ordered by time."""

    def __init__(self, n_tickets: int, *, seed: int = SEED) -> None:
        self._generator = np.random.Generator(np.random.PCG64(seed))
        self._numbers: list[float] = []
        self._n_tickets = n_tickets
        self._phrases = phrases()
        self._slots = {**self._phrases["slots"], "card": list(_CARDS), "iban": list(_IBANS)}

    def rows(self) -> list[Row]:
        """All rows; a copy repeats one of the previous 2,000 tickets."""
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
        """Add faults for the steps length and quality."""
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
            "reply": " ".join(self._some("replies", 5)) if self._chance() > 0.03 else None,
            "category": self._pick(_CATEGORIES),
            "priority": self._pick(("low", "normal", "normal", "high")),
            "reference": f"NB-{10_000 + self._below(90_000)}",
        }

    def _body(self) -> str:
        if self._chance() < 0.04:
            return " ".join(self._some(self._pick(("de", "fr", "es")), 6))
        sentences = []
        n_words, goal = 0, 40 + self._below(110)
        while n_words < goal:
            is_stock = self._chance() < 0.12
            sentences += self._some("stock" if is_stock else "sentences", 1)
            n_words += sentences[-1].count(" ") + 1
        if self._chance() < 0.15:
            sentences.insert(1 + self._below(len(sentences)), *self._some("personal", 1))
        text = " ".join(sentences)
        if self._chance() < 0.7:
            text = f"{self._pick(self._phrases['greetings'])}\n\n{text}"
        if self._chance() < 0.6:
            text = f"{text}\n\n{self._some('signatures', 1)[0]}"
        if self._chance() < 0.1:
            text = f"{text}\n\nOn Monday our care team wrote:\n> " + "\n> ".join(self._some("replies", 4))
        return text

    def _some(self, kind: str, n: int) -> list[str]:
        choices = self._phrases.get(kind) or self._phrases["other_languages"][kind]
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


def scale_table(n_tickets: int, folder: Path) -> TicketTable:
    """The tickets as a table that a step reads, made at the first call."""
    out = folder / f"scale-{n_tickets}-v{VERSION}"
    if not out.exists():
        from tasks.curate.rows import write_ordered_tickets, write_removed

        report(f"making {n_tickets:,} tickets")
        aside = out.with_suffix(".part")
        aside.mkdir(parents=True, exist_ok=True)
        write_ordered_tickets(_batches(n_tickets, ticket_files(N_BASE, folder)[0]), aside)
        write_removed([], aside)
        aside.rename(out)
    return TicketTable(root=out, rows=RowCounts(n_in=n_tickets, n_out=n_tickets))


def _batches(n_tickets: int, base: Path) -> Iterator[object]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from schemas.tables import TICKETS
    from tasks.curate.rows import ARROW_TYPES
    from tasks.storage.warehouse import connect

    table = pq.read_table(base)
    names = {column.name: column for column in TICKETS}
    for dialect in range(-(-n_tickets // N_BASE)):
        suffix = _suffix(dialect)
        wanted = min(N_BASE, n_tickets - dialect * N_BASE)
        for start in range(0, wanted, BATCH_ROWS):
            batch = table.slice(start, min(BATCH_ROWS, wanted - start))
            columns = ", ".join(_column(name, suffix, dialect, names[name].sql_type) for name in batch.column_names)
            with connect() as connection:
                connection.register("batch", batch)
                made = connection.sql(
                    f"SELECT {columns}, 'generated' AS source, ({dialect * N_BASE + start + 1} "
                    f"+ row_number() OVER () - 1)::BIGINT AS source_line FROM batch"
                ).to_arrow_table()
            for name, column in names.items():
                if name not in made.column_names:
                    made = made.append_column(name, pa.nulls(made.num_rows, ARROW_TYPES[column.sql_type]))
            yield made


def _column(name: str, suffix: str, dialect: int, sql_type: str) -> str:
    if name in ("ticket_id", "thread_id", "customer_id"):
        return f"'{dialect:03d}-' || {name} AS {name}"
    if name in ("subject", "body", "reply") and suffix:
        spoken = f"regexp_replace({name}, '\\b([a-z]{{6,}})\\b', '\\1{suffix}', 'g')"
        return f"regexp_replace({spoken}, '\\b({KEPT}){suffix}\\b', '\\1', 'g') AS {name}"
    return f"{name}::{sql_type} AS {name}"


def _suffix(dialect: int) -> str:
    """Nothing for the first, else two letters."""
    return "" if not dialect else f"{'bdfghjklmnprstvz'[dialect // 16]}{'bdfghjklmnprstvz'[dialect % 16]}"
