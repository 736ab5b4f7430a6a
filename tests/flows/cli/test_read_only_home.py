"""A home folder that this user may only read, such as an auditor's copy."""

import pytest

from tests.support.read_only import read_only
from tests.support.workplace import Workplace

READING = {
    "status": ("status",),
    "runs": ("runs",),
    "report": ("report", "RUN"),
    "report --out": ("report", "--last", "small", "--out", "report.html"),
    "model champion": ("model", "champion", "small"),
    "model history": ("model", "history", "small"),
    "gate explain": ("gate", "explain", "RUN"),
    "show": ("show", "RUN"),
    "data forget --plan": ("data", "forget", "C-1", "--plan"),
    "ops metrics": ("ops", "metrics"),
}
WRITING = {
    "run": ("run", "small", "--until", "curate"),
    "data forget --apply": ("data", "forget", "C-1", "--apply", "--unknown", "--reason", "asked"),
    "model rollback": ("model", "rollback", "small", "--reason", "r"),
    "model promote": ("model", "promote", "small", "1", "--force", "--reason", "r"),
}


def test_a_read_only_home_can_be_read_and_refuses_every_change(
    workplace: Workplace, caplog: pytest.LogCaptureFixture
) -> None:
    assert workplace.run("run", "small").returncode == 0
    run_id = workplace.json("runs")["runs"][0]["run_id"]
    with read_only(workplace.home):
        caplog.clear()
        read = {
            name: workplace.run(*(run_id if word == "RUN" else word for word in arguments))
            for name, arguments in READING.items()
        }
        assert {name: done.stderr for name, done in read.items() if done.returncode} == {}
        assert "is opened for reading only" in caplog.text
        assert "small v1" in read["status"].stdout
        assert (workplace.folder / "report.html").is_file()
        written = {name: workplace.run(*arguments) for name, arguments in WRITING.items()}
        assert {name: done.stderr for name, done in written.items() if "TG0554" not in done.stderr} == {}
        assert all(done.returncode for done in written.values())
    assert workplace.json("model", "champion", "small") is not None
