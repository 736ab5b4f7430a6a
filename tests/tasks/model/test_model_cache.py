"""The cache of conversions: a place that cannot be written to is reported."""

from pathlib import Path

import pytest

from schemas.errors import StorageError
from tasks.model.model_cache import cached_conversion


def test_a_cache_that_is_a_file_is_reported(tmp_path: Path) -> None:
    for name in ("cache", "model.gguf"):
        (tmp_path / name).write_text("")
    with pytest.raises(StorageError, match="TG0554"):
        cached_conversion(tmp_path / "model.gguf", tmp_path / "cache")
