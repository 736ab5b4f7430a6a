"""Runs the commands of the pages in page order, in one folder with a help desk and a tiny model.

Fills in RUN, PIPELINE and NAME. Each command must exit with 0, except those listed in `ENDS_WITH`.
`tests/support/documentation.py` reads the pages; `test_scenes.py` runs blocks with `scene`. Pipeline runs are forks of
the warm process, all other commands run in this one; `make campaign` runs everything.
"""

import re
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
from flows.cli.app import app
from schemas.artifacts import ModelRef
from schemas.source import GeneratedSource
from tasks.sources.helpdesk import generate_tickets
from tests.support.documentation import COMMANDS, Block, blocks, inline_commands, pages, unknown
from tests.support.workplace import ANSWERED, AS_GOOD, Workplace

GROUPS = ("data", "model", "study", "ops")
"""Groups of commands; `tunegate gate` counts as one command here."""
FLOWS = ("run", "curate", "tick")
"""Commands that start a Prefect flow."""
LOOKS = (
    "dictionary",
    "validate",
    "plan",
    "graph",
    "estimate",
    "runs",
    "status",
    "champion",
    "doctor",
    "schema",
    "explain",
)
"""Commands that need no earlier run."""
SERVES = ("serve", "endpoint", "up", "down")
"""Commands that run until interrupted, and commands that start or stop those."""
NOT_RUN = {
    "tunegate ops deploy --pool gpus": "needs a work pool; test_deployed_run.py has one",
    "tunegate study ablate support-replies": "trains four times; test_ablate.py runs it",
    "tunegate model verify DIR --key PUB.pem": "needs a signed export; test_signing.py has one",
    "tunegate init --from tickets.csv": "needs the reader's file; test_weekly_init.py has several",
    "tunegate study reproduce RUN": "takes as long as a run; test_reproduce.py runs it",
    "tunegate ops deploy": "needs a schedule; test_deployed_run.py has one",
    "tunegate ops deploy --pool NAME": "needs a work pool; test_deployed_run.py has one",
    "tunegate try tickets.csv": "needs the reader's file; test_scene_try has one",
    "tunegate pin org/name@main": "needs the hub; test_weekly_pin.py has a small one",
    "tunegate gate check --champion A.jsonl --candidate B.jsonl": "needs files of results; test_gate_files.py has some",
    "tunegate gate check NAME --candidate B.jsonl": "the same; test_gate_ledger.py has a ledger",
    "tunegate gate check --champion A.jsonl --candidate B.jsonl --rules gate.yaml --against main": "the same; "
    "test_pull_request.py has a repository",
    "tunegate gate label RUN": "needs a run with labels; test_gate_label.py has one",
    "tunegate gate label RUN --json": "the same",
    "tunegate plan PIPELINE --against main": "needs a repository; test_data_diff.py has one",
    "tunegate run support-replies --as-of 2026-05-31": "no ticket here is so old; test_running.py has some",
    "tunegate study estimate": "a mention; with a pipeline or --base it is run",
    "tunegate run tickets": "needs the reader's file; test_scene_try has one",
    "tunegate run NAME --set train.max_examples=70 --set evaluate.max_items=40": "the same",
    'tunegate run PIPELINE --accept-ledger --reason "disk failure, backup of Monday"': "needs another ledger; "
    "test_trusted.py has one",
}
"""Commands that are only parsed here."""
FILLED = {"RUN": "", "[RUN]": "", "NAME": "sam", "PIPELINE": "support-replies"}
"""Placeholder -> what a reader would type; a run's id comes later."""
_PLACEHOLDER = re.compile(r"[A-Z]{2,}(?:[./][A-Za-z]+)*")
ENDS_WITH = {
    "approve": (9, "TG0621"),  # no verdict waits for approval
    "promote": (9, "TG0621"),  # the only version is champion already
    "rollback": (2, "TG0159"),  # there is no earlier champion
    "advise": (8, "missing evidence"),  # one small run answers few of its questions
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
        found = {**FILLED, "RUN": self.run_id, "[RUN]": self.run_id}
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
    for name in ("t", "ticket.txt"):
        (tmp_path / name).write_text("Hello, order NB-40417 was charged twice this morning.")
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
    """Commands of tunegate in blocks that tests run, in page order, then those of the running text that are whole."""
    for block in blocks(project):
        if block.language in COMMANDS and not block.why_not and not block.scene:
            for command in block.commands():
                if command.startswith("tunegate ") and name_of(command) not in SERVES:
                    yield block, command
    for path in pages(project):
        for line, command in inline_commands(path):
            if is_whole(command) and name_of(command) not in SERVES:
                yield Block(path.relative_to(project).as_posix(), line, "bash", "", "", command), command


def is_whole(command: str) -> bool:
    """Whether it can be typed as it is: it has what its program needs, and no placeholder but those of `Page.do`.

    A command without argument and option is a mention, unless it is one that only looks.
    """
    words = shlex.split(command)
    given = words[3:] if words[1] in (*GROUPS, "gate") else words[2:]
    if words[0] != "tunegate" or words[1].startswith("-") or unknown(app, words[1:], complete=True):
        return False
    if words[1:] == words[1:2] and words[1] in GROUPS:
        return False  # a group
    placeholders = [word for word in given if _PLACEHOLDER.fullmatch(word) and word not in FILLED]
    return not placeholders and bool(given or name_of(command) in LOOKS)


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
    read_only = {
        command: block
        for command, block in commands_of(project).items()
        if name_of(command) in LOOKS and "RUN" not in command.split()
    }
    assert {name_of(command) for command in read_only} == set(LOOKS)
    failures = failed_commands(Page(folder, capsys), read_only)
    assert failures == [], "\n".join(failures)


def test_whole_commands_of_the_running_text_are_run_too(project: Path) -> None:
    commands = commands_of(project)
    assert "tunegate data dictionary --dbt --out models/sources.yml" in commands
    assert is_whole("tunegate graph PIPELINE --run RUN")
    for mention in (
        "tunegate run", "tunegate report", "tunegate data forget CUSTOMER --apply", "tunegate --install-completion",
        "tunegate model verify FOLDER --key PUB.pem", "make check",
    ):  # fmt: skip
        assert not is_whole(mention), mention
