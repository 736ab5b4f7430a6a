"""The commands of the pages, run in the order of the pages, in one folder with a help desk and a tiny model.

What a page calls RUN, PIPELINE or NAME is filled in. Each command must end with 0, but for the few that are told here
with the code they end with. Pages are read by `tests/support/documentation.py`; blocks with `scene` are run in
`test_scenes.py`. Runs are forks of the warm process, all other commands run in this one; `make campaign`
runs all.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from ruamel.yaml import YAML

from flows.cli import main
from schemas.artifacts import ModelRef
from schemas.source import GeneratedSource
from tasks.curate.helpdesk import generate_tickets
from tests.support.documentation import COMMANDS, Block, blocks

if TYPE_CHECKING:
    from tests.support.workplace import Workplace

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

GROUPS = ("data", "model", "study", "ops")
"""Groups of commands; `tunegate gate` counts as one command here."""
FLOWS = ("run", "curate", "tick")
"""Commands that start a Prefect flow."""
LOOKS = ("validate", "plan", "graph", "estimate", "runs", "status", "champion", "doctor", "schema", "explain")
"""Commands that need no run before them."""
SERVES = ("serve", "endpoint", "up", "down")
"""Commands that run until they are interrupted, or start and stop what does."""
NOT_RUN = {
    "tunegate ops deploy --pool gpus": "needs a pool; test_deploy.py has one",
    "tunegate study ablate support-replies": "trains four times; test_deciding.py does it",
    "tunegate model verify DIR --key PUB.pem": "needs a signed export; the tests of signing have one",
    "tunegate init --from tickets.csv": "a file of yours; the tests of init have many",
    "tunegate study reproduce RUN": "as long as a run; test_reproduce.py does it",
}
"""Commands of the overviews that are parsed elsewhere and not run here."""
ENDS_WITH = {
    "approve": (9, "TG0621"),  # nobody waits
    "promote": (9, "TG0621"),  # there is one version
    "rollback": (2, "TG0159"),  # and it is the first champion
}
SMALL = {
    "train": {"max_length": 512, "max_examples": 32, "overflow": "truncate_left", "max_steps": 6, "threads": 1},
    "evaluate": {"max_items": 12, "max_new_tokens": 4, "arms": ["zero_shot", "majority", "tfidf"], "threads": 1},
    "gates": {"min_items": 5, "round_trip": None, "rules": [{"metric": "format", "value_threshold": 0.0}]},
}
"""What makes the quickstart's pipeline a matter of seconds, and its first candidate a champion."""


@dataclass
class Page:
    """A folder as a reader of the pages has it."""

    folder: Path
    capsys: pytest.CaptureFixture[str]
    place: Workplace | None = None
    run_id: str = ""

    def do(self, command: str) -> tuple[int, str]:
        """Exit code and everything that was said."""
        found = {"RUN": self.run_id, "[RUN]": self.run_id, "NAME": "sam", "PIPELINE": "support-replies"}
        words = [found.get(word, word) for word in shlex.split(command)][1:]
        if self.place is not None and name_of(command) in FLOWS:
            done = self.place.run(*words)
            return done.returncode, done.stdout + done.stderr
        with pytest.raises(SystemExit) as ended:
            main(words)
        said = self.capsys.readouterr()
        return int(ended.value.code or 0), said.out + said.err


@pytest.fixture
def folder(tmp_path: Path, tiny_model: ModelRef, project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pipelines.yaml as the quickstart writes it, small and under the name of the demo; a week of tickets."""
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
    """Commands of tunegate in blocks that are run, in the order of the pages."""
    for block in blocks(project):
        if block.language in COMMANDS and not block.why_not and not block.scene:
            for command in block.commands():
                if command.startswith("tunegate ") and name_of(command) not in SERVES:
                    yield block, command


def commands_of(project: Path) -> dict[str, Block]:
    """Each command once, with the first block that has it."""
    commands: dict[str, Block] = {}
    for block, command in runnable(project):
        commands.setdefault(command, block)
    assert len(commands) > 40
    assert NOT_RUN.keys() <= commands.keys()
    return {command: block for command, block in commands.items() if command not in NOT_RUN}


def refused(page: Page, commands: dict[str, Block]) -> list[str]:
    """Run them; those that end otherwise than told."""
    wrong = []
    for command, block in commands.items():
        expected, told = ENDS_WITH.get(name_of(command), (0, ""))
        code, said = page.do(command)
        if code != expected or told not in said:
            wrong.append(f"{block.place} {command}: {code}\n{said[-600:]}")
    return wrong


def test_commands_that_only_look_do_what_the_pages_say(
    folder: Path, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    looks = {command: block for command, block in commands_of(project).items() if name_of(command) in LOOKS}
    assert {name_of(command) for command in looks} == set(LOOKS)
    wrong = refused(Page(folder, capsys), looks)
    assert wrong == [], "\n".join(wrong)
