"""A help desk whose tickets, customers, queues and messages are tables of a database."""

import random
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb

from tests.support.strangers import sentence

Rows = list[tuple[Any, ...]]
COLUMNS = {
    "customers": "id INTEGER {key}, name TEXT, email TEXT",
    "queues": "id INTEGER {key}, name TEXT",
    "tickets": "id INTEGER {key}, customer_id INTEGER, queue_id INTEGER, subject TEXT, created_at TIMESTAMP",
    "messages": "id INTEGER {key}, ticket_id INTEGER, author TEXT, internal BOOLEAN, body TEXT, created_at TIMESTAMP",
}
QUEUES = ("billing", "repairs", "delivery")


def desk_rows(n: int) -> dict[str, Rows]:
    """Tickets of 40 customers. In every fourth an internal note comes before the reply, and in every second more
    messages follow; messages have ids against the order of time."""
    draw = random.Random(1)
    tickets: Rows = []
    messages: Rows = []
    for ticket in range(1, n + 1):
        day = f"2026-{1 + 9 * ticket // n:02d}-{1 + ticket % 28:02d}"
        tickets.append((ticket, 1 + ticket % 40, 1 + ticket % 3, f"Case {ticket}", f"{day} 08:00:00"))
        said = [("customer", False, sentence(draw))]
        if ticket % 4 == 0:
            said.append(("agent", True, f"Note {ticket}: a difficult customer"))
        said.append(
            ("agent", False, f"Please send part {ticket} back to our {draw.choice(('first', 'second'))} workshop.")
        )
        if ticket % 2:
            said += [("customer", False, f"It is on its way, {ticket}."), ("agent", False, f"Case {ticket} is closed.")]
        for place, (who, is_internal, text) in reversed(list(enumerate(said))):
            messages.append((len(messages) + 1, ticket, who, is_internal, text, f"{day} {9 + place:02d}:10:00"))
    return {
        "customers": [(number, f"Customer {number}", f"person{number}@example.org") for number in range(1, 41)],
        "queues": [(number, name) for number, name in enumerate(QUEUES, 1)],
        "tickets": tickets,
        "messages": messages,
    }


def first_texts(rows: Mapping[str, Rows]) -> dict[str, tuple[str, str]]:
    """Ticket -> the customer's first message, and the first of an agent that a customer may read."""
    found: dict[str, dict[str, str]] = {}
    for _, ticket, who, is_internal, text, _ in sorted(rows["messages"], key=lambda row: row[-1]):
        if not is_internal:
            found.setdefault(str(ticket), {}).setdefault(who, text)
    return {ticket: (texts["customer"], texts["agent"]) for ticket, texts in found.items()}


def statements(*, key: str = "PRIMARY KEY") -> list[str]:
    """What creates the tables."""
    return [f"CREATE TABLE {name} ({columns.format(key=key)})" for name, columns in COLUMNS.items()]


def write_duckdb(path: Path, rows: Mapping[str, Rows], *, key: str = "PRIMARY KEY") -> Path:
    with duckdb.connect(str(path)) as connection:
        for statement in statements(key=key):
            connection.execute(statement)
        for name, each in rows.items():
            connection.executemany(f"INSERT INTO {name} VALUES ({', '.join('?' for _ in each[0])})", each)
    return path


def write_sqlite(path: Path, rows: Mapping[str, Rows], *, key: str = "PRIMARY KEY") -> Path:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements(key=key):
            connection.execute(statement)
        for name, each in rows.items():
            connection.executemany(f"INSERT INTO {name} VALUES ({', '.join('?' for _ in each[0])})", each)
    return path


def write_postgres(url: str, rows: Mapping[str, Rows], *, key: str = "PRIMARY KEY") -> None:
    import psycopg2
    from psycopg2.extras import execute_values

    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        for statement in statements(key=key):
            cursor.execute(statement)
        for name, each in rows.items():
            execute_values(cursor, f"INSERT INTO {name} VALUES %s", each)
