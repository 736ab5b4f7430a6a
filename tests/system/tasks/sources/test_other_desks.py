"""A help desk without a connector: dlt loads it as in docs/how-to/connect-a-source.md, and tunegate reads it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from schemas.source import DuckDBSource
from tests.support.synced import sync, tickets

DESK = """\
import json, sys

class desk:
    def tickets(since):
        return (each for each in json.load(open("tickets.json")) if each["updated_at"] >= since)

"""


def test_a_desk_loaded_by_dlt_is_read_with_the_query_of_the_documentation(tmp_path: Path, project: Path) -> None:
    section = (project / "docs" / "how-to" / "connect-a-source.md").read_text().partition("\n## Other help desks\n")[2]
    code = section.partition("```python\n")[2].partition("```")[0]
    declared = YAML(typ="safe").load(section.partition("```yaml\n")[2].partition("```")[0])["source"]
    source = DuckDBSource.model_validate(declared)

    made = [ticket(number) for number in range(1, 41)]
    load(tmp_path, DESK + code, made)
    found = tickets(sync(source, tmp_path))
    assert sorted(found) == sorted(str(number) for number in range(1, 41) if number % 4)
    assert (found["1"]["body"], found["1"]["reply"]) == ("Question 1, please help.", "Last answer 1.")
    assert found["1"]["customer_id"] == "101"

    made[0] |= {"updated_at": "2026-07-01T00:00:00Z", "description_text": "Question 1, in other words."}
    load(tmp_path, DESK + code, made)
    found = tickets(sync(source, tmp_path))
    assert found["1"]["body"] == "Question 1, in other words."
    assert len(found) == 30


def ticket(number: int) -> dict[str, Any]:
    """A ticket as in Freshdesk's API; every fourth is not closed."""

    def message(hour: int, text: str, *, incoming: bool = False, private: bool = False) -> dict[str, Any]:
        moment = f"2026-06-02T{hour:02d}:00:00Z"
        return {"body_text": text, "incoming": incoming, "private": private, "created_at": moment}

    return {
        "id": number, "requester_id": 100 + number, "status": 5 if number % 4 else 2, "subject": f"Subject {number}",
        "created_at": "2026-06-01T09:00:00Z", "updated_at": f"2026-06-03T09:{number:02d}:00Z",
        "description_text": f"Question {number}, please help.",
        "conversations": [
            message(10, f"First answer {number}."), message(14, f"Note {number}.", private=True),
            message(12, f"Last answer {number}."), message(13, "Thanks!", incoming=True),
        ],
    }  # fmt: skip


def load(folder: Path, code: str, rows: list[dict[str, Any]]) -> None:
    """Run the documentation's code in its own process, because dlt keeps state in the process and in $HOME."""
    (folder / "tickets.json").write_text(json.dumps(rows))
    quiet = {"RUNTIME__DLTHUB_TELEMETRY": "false", "DLT_DATA_DIR": str(folder / "dlt"), "HOME": str(folder)}
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, env={**os.environ, **quiet}, timeout=300)
