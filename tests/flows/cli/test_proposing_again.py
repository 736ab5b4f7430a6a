"""A file that `try` has written is accepted again, whatever another probe of the processor finds."""

import csv
from pathlib import Path

import pytest

from flows.cli.starting import write_proposal
from schemas.errors import ConfigError
from schemas.load import load_file
from tests.tasks.start.conftest import ticket


def test_a_slower_machine_changes_no_file_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, source, config = list(map(ticket, range(200))), tmp_path / "tickets.csv", tmp_path / "pipelines.yaml"
    with source.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    first = write_proposal(source, config, existing="accept")
    text, pace = config.read_text(), first.sizes.answers_per_minute
    monkeypatch.setattr("tasks.start.propose.answers_per_minute", lambda **_: 2 * pace)
    assert write_proposal(source, config, existing="accept").sizes == first.sizes
    assert config.read_text() == text
    assert load_file(config).get("tickets").evaluate.answers_per_minute == pace
    with pytest.raises(ConfigError, match="is there already"):
        write_proposal(source, config)
    assert write_proposal(source, config, existing="replace").sizes.answers_per_minute == 2 * pace
