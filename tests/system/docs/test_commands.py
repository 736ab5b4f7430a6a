"""Runs the commands of the pages in page order, in one folder with a help desk and a tiny model.

Fills in RUN, PIPELINE and NAME. Each command must exit with 0, except those listed in `ENDS_WITH`.
`tests/support/documentation.py` reads the pages; `test_scenes.py` runs blocks with `scene`. Pipeline runs are forks of
the warm process, all other commands run in this one; `make campaign` runs everything.
"""

from pathlib import Path

import pytest

from flows.ledger.ledger import Ledger
from tests.docs.test_commands import SMALL, Page, commands_of, exported_tickets, failed_commands, folder
from tests.support.workplace import ForkedWorkplace


@pytest.mark.server
@pytest.mark.campaign  # six flow runs, two trainings
def test_every_command_of_the_pages_does_what_the_page_says(
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
    code, output = page.do(first)
    assert code == 0, output
    page.run_id = Ledger(empty_workplace.home).runs(limit=1)[0].run_id
    failures = failed_commands(page, commands)
    assert failures == [], "\n".join(failures)
