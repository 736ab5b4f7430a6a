"""Checkpoints on shared storage: complete or absent, only the last ones, and none left when training is over."""

import os
import signal
from pathlib import Path

import pytest

from tasks.cluster.depot import Depot
from tasks.cluster.shared import Shared
from tasks.storage.failpoint import VARIABLE
from tests.tasks.cluster.test_depot import bring, checkpoint


@pytest.fixture
def shared(tmp_path: Path) -> Shared:
    return Shared(f"file://{tmp_path / 'shared'}")


def test_a_kill_between_a_checkpoint_and_its_note_keeps_the_previous_checkpoint(tmp_path: Path, shared: Shared) -> None:
    depot, scratch = Depot(shared, "k1"), tmp_path / "scratch"
    depot.save(scratch, checkpoint(scratch, 2))
    newer = checkpoint(scratch, 4)
    child = os.fork()
    if not child:
        os.environ[VARIABLE] = "train.depot.put"
        depot.save(scratch, newer)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert bring(depot, tmp_path / "after") == ["step-00000002"]
    depot.save(scratch, newer)
    assert bring(depot, tmp_path / "later") == ["step-00000002", "step-00000004"]
