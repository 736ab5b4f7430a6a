"""Several processes that train together, with real processes on the tiny model: the same training, wherever it dies."""

from __future__ import annotations

import pytest

from schemas.training import TrainSpec


def test_sharding_is_refused_where_it_does_nothing_or_cannot() -> None:
    with pytest.raises(ValueError, match="and there is one"):
        TrainSpec(base_model="x", sharding="full")
    with pytest.raises(ValueError, match="4-bit"):
        TrainSpec(base_model="x", sharding="full", processes=2, method="qlora")
