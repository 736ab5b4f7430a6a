"""Kinds of source: each one that can be declared has a file, and none takes another's name."""

from pathlib import Path

import pytest

from schemas.source import SOURCES
from tasks.sources.registry import kind_of, register


@pytest.mark.parametrize("spec", [SOURCES[name] for name in SOURCES], ids=lambda spec: spec.__name__)
def test_every_kind_that_can_be_declared_has_a_file(spec: type) -> None:
    assert kind_of(spec.model_construct()).spec is spec


def test_a_kind_does_not_take_the_name_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "second_files.py").write_text(
        "from schemas.source import FilesSource\n"
        "from tasks.sources.kind import SourceKind\n\n\n"
        "class Files(SourceKind[FilesSource]):\n    spec = FilesSource\n\n\nKIND = Files()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="a kind of source 'files' exists already"):
        register("second_files")
