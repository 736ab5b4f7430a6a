"""`tunegate init` by the real command: its output runs as written."""

import os
import re

import pytest

from tests.flows.cli.test_weekly_init import write_export
from tests.support.workplace import ForkedWorkplace


@pytest.mark.server
@pytest.mark.model
@pytest.mark.campaign
@pytest.mark.timeout(1800)
def test_the_written_file_reaches_a_verdict_with_the_embedded_model(empty_workplace: ForkedWorkplace) -> None:
    write_export(empty_workplace.folder)
    (empty_workplace.folder / "pipelines.yaml").unlink()
    empty_workplace.json("init", "--from", "tickets.csv")
    text = (empty_workplace.folder / "pipelines.yaml").read_text()
    for key, size in {"max_examples": 16, "max_items": 8, "max_new_tokens": 8}.items():  # minutes instead of an hour
        text = re.sub(rf"\b{key}: \d+", f"{key}: {size}", text)
    (empty_workplace.folder / "pipelines.yaml").write_text(text)
    done = empty_workplace.run("run", "tickets", TUNEGATE_CACHE=os.environ.get("TUNEGATE_CACHE", ""))
    assert done.returncode in (5, 8), done.stderr  # HOLD: so few items prove nothing
