"""The workspace of `make bench-forget` is one that the program accepts."""

from pathlib import Path

from benchmarks.forget import make_workspace, plan_forgetting
from flows.ledger.open import open_ledger
from flows.privacy.index import HomeGraph, update_index
from flows.privacy.keys import load_hashes


def test_a_customer_is_found_in_the_workspace_each_time(tmp_path: Path) -> None:
    for _ in range(2):
        settings = make_workspace(tmp_path, 1_000)
        update_index(settings, HomeGraph(settings.home, open_ledger(settings)), load_hashes(settings))
        plan_forgetting(settings)
