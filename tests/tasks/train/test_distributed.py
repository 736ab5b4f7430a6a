"""Training with several real processes on the tiny model: the same result, whichever process dies and when."""

import pytest
from torch.distributed import TCPStore

from schemas.errors import TrainingError
from schemas.training import TrainSpec
from tasks.train.distributed import join
from tasks.train.place import LISTENER, PORT, RANK, SIZE


def test_useless_or_impossible_sharding_is_refused() -> None:
    with pytest.raises(ValueError, match="and there is one"):
        TrainSpec(base_model="x", sharding="full")
    with pytest.raises(ValueError, match="4-bit"):
        TrainSpec(base_model="x", sharding="full", processes=2, method="qlora")


def test_processes_on_other_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    store.set("device/0", "another kind")
    for name, value in ((RANK, 1), (SIZE, 2), (PORT, store.port)):
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv(LISTENER, raising=False)
    with pytest.raises(TrainingError, match="TG0416"):
        join(TrainSpec(base_model="x", processes=2))
