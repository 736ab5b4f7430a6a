"""Examples are read from the folders of a data set."""

from pathlib import Path

import pytest

from schemas.errors import DataError
from tasks.train.batches import Examples


def test_damaged_examples_are_refused(tmp_path: Path) -> None:
    for name in ("dataset_info.json", "state.json"):
        (tmp_path / name).write_text("{")
    with pytest.raises(DataError, match="TG0323"):
        Examples(tmp_path)
