"""Files of tickets, with texts that tests search for in the output."""

import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

Row = dict[str, Any]
WriteCsv = Callable[..., Path]


def ticket(number: int) -> Row:
    """A ticket of a fictional shop; its words occur in no name and no setting."""
    label = ("billing", "delivery", "returns")[number % 3]
    return {
        "Ticket ID": f"K-{number:05d}",
        "Created": f"2026-{1 + number % 12:02d}-{1 + number % 28:02d}T{number % 24:02d}:15:00Z",
        "Requester": f"cust{number % 40}",
        "Customer Email": f"zebra{number}@mail.example",
        "Title": f"Xylophone case {number}",
        "Message": f"Good morning, my xylophone number {number} sounds wrong since Monday, please help with {label}.",
        "Agent Reply": f"We are sorry about that. Please send xylophone {number} back with the label we mailed you.",
        "Issue Type": label,
        "lang": "en",
        "Notes": "",
    }


@pytest.fixture
def write_csv(tmp_path: Path) -> WriteCsv:
    """Write rows as CSV; return the file."""

    def write(rows: Iterable[Row], name: str = "tickets.csv") -> Path:
        listed = list(rows)
        path = tmp_path / name
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(listed[0]))
            writer.writeheader()
            writer.writerows(listed)
        return path

    return write


@pytest.fixture
def write_jsonl(tmp_path: Path) -> WriteCsv:
    """Write rows as JSON lines; return the file."""

    def write(rows: Iterable[Row], name: str = "tickets.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write
