"""Loading a configuration from text, under the name that error messages show."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from schemas.load import ConfigErrors, PipelineFile, load_file

Load = Callable[..., PipelineFile]
Explain = Callable[..., str]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Loads a text (or bytes) as `pipelines.yaml`, with no environment unless given."""
    monkeypatch.chdir(tmp_path)

    def from_text(text: str | bytes, environ: Mapping[str, str] | None = None) -> PipelineFile:
        path = Path("pipelines.yaml")
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return load_file(path, environ=environ or {})

    return from_text


@pytest.fixture
def explain(load: Load) -> Explain:
    """The rendered faults of a text that must not load."""

    def from_text(text: str | bytes, environ: Mapping[str, str] | None = None) -> str:
        with pytest.raises(ConfigErrors) as caught:
            load(text, environ)
        return str(caught.value)

    return from_text
