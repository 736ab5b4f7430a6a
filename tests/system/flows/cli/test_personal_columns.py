"""Personal data in every column of a source: a run publishes none of what redaction knows, and counts the rest."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.prefect_server import PrefectServer
from tests.support.ticket_file import WORDS
from tests.support.workplace import ForkedWorkplace

pytestmark = pytest.mark.server

FILE = "eve.miller@example.org"
CATEGORIES = ("ann.smith@example.org", "billing", "bob.jones@example.org", "delivery")
PRODUCTS = ("559-292-9000", "lamp", "+49 30 98306281", "hub")
PRIORITIES = ("4539 1488 0343 6467", "high")
CHANNELS = ("DE89 3704 0044 0532 0130 00", "web")
CUSTOMERS = ("Konrad Ziegler", "carla.diaz@example.org", "4155550142")
THREAD = "dora.lund@example.org"
UNMAPPED = "5555 5555 5555 4444"
PLANTED = (
    FILE, *CATEGORIES[::2], *PRODUCTS[::2], PRIORITIES[0], CHANNELS[0], *CUSTOMERS, THREAD, UNMAPPED,
)  # fmt: skip
BARE = "4158732701"
"""A number that no text calls a phone: it stays, and is counted."""


def ticket(n: int) -> dict[str, Any]:
    one, two = WORDS[n % 10], WORDS[n // 10 % 10]
    return {
        "ticket_id": f"T{n}", "created_at": f"2026-06-{1 + n % 28:02}T{n % 24:02}:00:00Z",
        "subject": f"About {one}", "body": f"My {one} {n} and the {two} of week {n * 7 % 53} are wrong, what now?",
        "reply": f"We look into your {one}, ticket {n}." if n % 9 else None,
        "category": CATEGORIES[n % 4], "product": BARE if n % 25 == 5 else PRODUCTS[n % 4],
        "priority": PRIORITIES[n % 2], "channel": CHANNELS[n % 2], "notes": UNMAPPED,
        "customer_id": CUSTOMERS[n % 3] if n < 24 else f"C{n}", "thread_id": THREAD if n == 7 else None,
    }  # fmt: skip


def published(workplace: ForkedWorkplace, server: PrefectServer) -> dict[str, str]:
    """What leaves the machine, or is shown to people who must not see tickets: name -> content."""
    home = workplace.home
    folders = [home / name for name in ("reports", "mlflow", "runs", "logs")]
    folders += [home / "store" / name for name in ("bundle", "gate", "card")]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    files += [path for path in home.iterdir() if path.name.startswith("ledger")]
    assert {"report.html", "report-without-text.html", "report.md", "decision.md", "mlflow.db", "ledger.sqlite"} <= {
        path.name for path in files
    }
    found = {str(path.relative_to(home)): path.read_text(encoding="utf-8", errors="replace") for path in files}
    for what, sort in (("artifacts", "CREATED_DESC"), ("logs", "TIMESTAMP_DESC")):
        listed = server.ask(f"/{what}/filter", {"sort": sort, "limit": 200})
        assert listed
        found[f"Prefect's {what}"] = json.dumps(listed, ensure_ascii=False)
    return found


@pytest.mark.usefixtures("fresh_worker")
def test_what_redaction_knows_is_published_from_no_column_and_what_it_may_not_know_is_counted(
    empty_workplace: ForkedWorkplace, prefect_server: PrefectServer
) -> None:
    folder = Path(empty_workplace.folder)
    for part, name in enumerate((f"week-{FILE}.jsonl", "week2.jsonl")):
        lines = [json.dumps(ticket(n)) + "\n" for n in range(part, 200, 2)]
        (folder / name).write_text("".join(lines))

    def change(document: dict[str, Any]) -> None:
        small = document["pipelines"]["small"]
        small["source"] = {"kind": "files", "paths": ["*.jsonl"]}
        small["curate"]["steps"][0] |= {
            "names": {"mode": "rules"},
            "types": ["email", "phone", "card", "iban", "name"],
        }
        small["split"] = {"test_fraction": 0.3, "validation_fraction": 0.05, "by_time": False}
        small["evaluate"] |= {"slices": ["product", "channel", "category", "priority"], "max_items": 30}
        small["gates"] |= {"slices": {"by": ["product", "category"]}}

    empty_workplace.declare(change)
    done = empty_workplace.run("run", "small")
    assert done.returncode in (0, 5, 8), done.stderr
    found = published(empty_workplace, prefect_server) | {"stdout": done.stdout, "stderr": done.stderr}
    for command in (
        ["report", "--last", "small"],
        ["data", "funnel", "small", "--reasons"],
        ["model", "history", "small"],
    ):
        shown = empty_workplace.run(*command)
        found[" ".join(command)] = shown.stdout + shown.stderr
    leaks = [(value, name) for value in PLANTED for name, text in found.items() if value in text]
    assert leaks == []

    notes = empty_workplace.json("report", "--last", "small")["notes"]
    assert {note.split(" ", 1)[0] for note in notes if "was personal data and is now a placeholder" in note} == {
        "category", "product", "priority", "channel"
    }  # fmt: skip
    assert any(note.startswith("category of 100 tickets") and "1 value became equal" in note for note in notes)
    assert any(note.startswith("product of ") and "may be personal data" in note for note in notes)
    said = " ".join(done.stderr.split())
    assert "category of 100 tickets was personal data and is now a placeholder" in said
    assert "customer_id is an e-mail address or the like in" in said
