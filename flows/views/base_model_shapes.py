"""Find the shapes of a pipeline's base model before it is fetched, for `study estimate` and `study advise`."""

from pathlib import Path

from schemas.training import TrainSpec
from tasks.model.base_model import read_config
from tasks.model.model_uri import FileUri, parse_model_uri
from tasks.train.model_shapes import ModelDims, known_dims


def dims_of(spec: TrainSpec, root: Path) -> ModelDims:
    """Read them from its config.json if that is available, else from the shipped shapes, by its name.

    Args:
        root: Folder of pipelines.yaml.

    Raises:
        ConfigError: TG0171, no shapes of that name are shipped; TG0173 and TG0171, see `read_config`.
    """
    source = parse_model_uri(spec.base_model)
    if isinstance(source, FileUri):
        path = root / source.path / "config.json"
        dims = ModelDims.of(read_config(path)) if path.is_file() else None
        if dims is not None:
            return dims
    return known_dims(_named(spec.base_model))


def _named(uri: str) -> str:
    """
    >>> _named("pypi://dist@0.1/some/SmolLM2-135M-Instruct.Q4_1.gguf#sha256=00")
    'smollm2-135m'
    """
    name = uri.partition("#")[0].partition("@")[0] if uri.startswith("hf://") else uri.partition("#")[0]
    name = name.rstrip("/").rpartition("/")[2].lower().partition(".q")[0]
    return name.removesuffix("-hf").removesuffix("-instruct")
