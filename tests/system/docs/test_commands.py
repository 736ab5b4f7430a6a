"""The commands of the pages, run in the order of the pages, in one folder with a help desk and a tiny model.

What a page calls RUN, PIPELINE or NAME is filled in. Each command must end with 0, but for the few that are told here
with the code they end with. Pages are read by `tests/support/documentation.py`; blocks with `scene` are run in
`test_scenes.py`. Runs are forks of the warm process, all other commands run in this one; `make campaign`
runs all.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from ruamel.yaml import YAML

from flows.ledger.ledger import Ledger
from schemas.artifacts import ModelRef
from tests.docs.test_commands import (
    SMALL,
    Page,
    commands_of,
    exported_tickets,
    folder,
    refused,
)
from tests.support.documentation import blocks

if TYPE_CHECKING:
    from tests.support.workplace import ForkedWorkplace

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


@pytest.mark.server
@pytest.mark.campaign  # six flows, two trainings
def test_all_commands_of_the_pages_do_what_they_say(
    empty_workplace: ForkedWorkplace,
    folder: Path,  # after the workplace, whose pipelines.yaml it writes over
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert folder == empty_workplace.folder
    for name, value in empty_workplace.environ.items():
        monkeypatch.setenv(name, value)
    page, commands = Page(folder, capsys, empty_workplace), commands_of(project)
    first = "tunegate run support-replies"
    del commands[first]
    code, said = page.do(first)
    assert code == 0, said
    page.run_id = Ledger(empty_workplace.home).runs(limit=1)[0].run_id
    wrong = refused(page, commands)
    assert wrong == [], "\n".join(wrong)
