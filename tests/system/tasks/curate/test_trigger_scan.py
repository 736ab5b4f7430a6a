"""Planted triggers are found with their numbers and quarantined; clean tickets have none."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from schemas.curation_steps import TriggerScanStep
from schemas.source import GeneratedSource
from tasks.curate.trigger_scan import scan_triggers
from tests.support.synced import extract


def step(**options: Any) -> TriggerScanStep:
    return TriggerScanStep(uses="trigger_scan", **options)


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(5))
def test_clean_generated_tickets_contain_no_trigger(
    tmp_path: Path, make_tickets: Any, new_folder: Any, seed: int
) -> None:
    source = GeneratedSource(kind="generated", n_tickets=8000, n_customers=[60, 400, 800, 1200, 2000][seed], seed=seed)
    result = scan_triggers(tickets=extract(source, tmp_path), step=step(), out=new_folder())
    assert result.notes["triggers"] == 0, pq.read_table(result.root / "triggers.parquet").to_pylist()[:3]
