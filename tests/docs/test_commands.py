"""Runs the commands of the pages in page order, in one folder with a help desk and a tiny model.

Fills in RUN, PIPELINE and NAME. Each command must exit with 0, except those listed in `ENDS_WITH`.
`tests/support/documentation.py` reads the pages; `test_scenes.py` runs blocks with `scene`. Pipeline runs are forks of
the warm process, all other commands run in this one; `make campaign` runs everything.
"""

import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from ruamel.yaml import YAML

from flows.cli import main
from schemas.artifacts import ModelRef
from schemas.source import GeneratedSource
from tasks.sources.helpdesk import generate_tickets
from tests.support.documentation import COMMANDS, Block, blocks
from tests.support.workplace import ANSWERED, AS_GOOD, Workplace

GROUPS = ("data", "model", "study", "ops")
"""Groups of commands; `tunegate gate` counts as one command here."""
FLOWS = ("run", "curate", "tick")
"""Commands that start a Prefect flow."""
LOOKS = ("validate", "plan", "graph", "estimate", "runs", "status", "champion", "doctor", "schema", "explain")
"""Commands that need no earlier run."""
SERVES = ("serve", "endpoint", "up", "down")
"""Commands that run until interrupted, and commands that start or stop those."""
NOT_RUN = {
    "tunegate ops deploy --pool gpus": "needs a work pool; test_deployed_run.py has one",
    "tunegate study ablate support-replies": "trains four times; test_ablate.py runs it",
    "tunegate model verify DIR --key PUB.pem": "needs a signed export; test_signing.py has one",
    "tunegate init --from tickets.csv": "needs the reader's file; test_weekly_init.py has several",
    "tunegate study reproduce RUN": "takes as long as a run; test_reproduce.py runs it",
}
"""Commands that are only parsed here."""
ENDS_WITH = {
    "approve": (9, "TG0621"),  # no verdict waits for approval
    "promote": (9, "TG0621"),  # the only version is champion already
    "rollback": (2, "TG0159"),  # there is no earlier champion
}
SMALL = {
    "train": {"max_length": 512, "max_examples": 32, "overflow": "truncate_left", "max_steps": 6, "threads": 1},
    "evaluate": {
        "max_items": 12,
        "max_new_tokens": 4,
        "arms": ["zero_shot", "majority", "tfidf"],
        "metrics": [ANSWERED],
        "threads": 1,
    },
    "gates": AS_GOOD,
}
"""Makes the quickstart's pipeline run in seconds and its first candidate a champion."""


@dataclass
class Page:
    """A folder as a reader of the pages has it."""

    folder: Path
    capsys: pytest.CaptureFixture[str]
    place: Workplace | None = None
    run_id: str = ""

    def do(self, command: str) -> tuple[int, str]:
        """Run a command; return its exit code and all output."""
        found = {"RUN": self.run_id, "[RUN]": self.run_id, "NAME": "sam", "PIPELINE": "support-replies"}
        words = [found.get(word, word) for word in shlex.split(command)][1:]
        if self.place is not None and name_of(command) in FLOWS:
            done = self.place.run(*words)
            return done.returncode, done.stdout + done.stderr
        with pytest.raises(SystemExit) as ended:
            main(words)
        output = self.capsys.readouterr()
        return int(ended.value.code or 0), output.out + output.err


@pytest.fixture
def folder(tmp_path: Path, tiny_model: ModelRef, project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The quickstart's pipelines.yaml, made small and named like the demo's, and a week of tickets."""
    text = next(block.text for block in blocks(project) if block.language == "yaml" and "  mine:" in block.text)
    document = YAML(typ="safe", pure=True).load(text)
    mine: dict[str, Any] = document["pipelines"]["mine"]
    for section, changes in SMALL.items():
        mine[section] = {**mine[section], **changes}
    for file, name in (("pipelines.yaml", "support-replies"), ("mine.yaml", "mine")):
        document["pipelines"] = {name: {**mine, "register": {"name": name}}}
        with (tmp_path / file).open("w") as stream:
            YAML().dump(document, stream)
    shutil.copytree(tiny_model.root, tmp_path / "models" / "base")
    (tmp_path / "exports").mkdir()
    (tmp_path / "exports" / "week.jsonl").write_bytes(b"".join(exported_tickets()))
    (tmp_path / "t").write_text("Hello, order NB-40417 was charged twice this morning.")
    feedback = {"ticket_id": "T-000004", "version": "1", "outcome": "accepted", "at": "2026-06-08T09:12:00Z"}
    (tmp_path / "f").write_bytes(orjson.dumps(feedback) + b"\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TUNEGATE_HOME", raising=False)
    return tmp_path


def exported_tickets() -> Iterator[bytes]:
    """Generated tickets under the names that the quickstart maps."""
    source = GeneratedSource(kind="generated", n_tickets=240, n_customers=60, seed=3)
    for line in generate_tickets(source):
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue  # broken on purpose
        if isinstance(row, dict) and {"ticket_id", "body", "reply"} <= row.keys():
            row |= {
                "id": row.pop("ticket_id"),
                "description": row.pop("body"),
                "comments": [{"body": row.pop("reply")}],
            }
            yield orjson.dumps(row) + b"\n"


def name_of(command: str) -> str:
    """`tunegate data curate NAME` -> `curate`, `tunegate run NAME` -> `run`."""
    words = command.split()
    return words[2] if words[1] in GROUPS else words[1]


def runnable(project: Path) -> Iterator[tuple[Block, str]]:
    """Commands of tunegate in blocks that tests run, in page order."""
    for block in blocks(project):
        if block.language in COMMANDS and not block.why_not and not block.scene:
            for command in block.commands():
                if command.startswith("tunegate ") and name_of(command) not in SERVES:
                    yield block, command


def commands_of(project: Path) -> dict[str, Block]:
    """Each command once, with the first block that contains it."""
    commands: dict[str, Block] = {}
    for block, command in runnable(project):
        commands.setdefault(command, block)
    assert len(commands) > 40
    assert NOT_RUN.keys() <= commands.keys()
    return {command: block for command, block in commands.items() if command not in NOT_RUN}


def failed_commands(page: Page, commands: dict[str, Block]) -> list[str]:
    """Run the commands; return those that end otherwise than expected."""
    failures = []
    for command, block in commands.items():
        expected_code, error_code = ENDS_WITH.get(name_of(command), (0, ""))
        code, output = page.do(command)
        if code != expected_code or error_code not in output:
            failures.append(f"{block.place} {command}: {code}\n{output[-600:]}")
    return failures


def test_read_only_commands_do_what_the_pages_say(
    folder: Path, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read_only = {command: block for command, block in commands_of(project).items() if name_of(command) in LOOKS}
    assert {name_of(command) for command in read_only} == set(LOOKS)
    failures = failed_commands(Page(folder, capsys), read_only)
    assert failures == [], "\n".join(failures)
