"""Read and check a model's `config.json`: plausible shapes, and no code of its own.

transformers accepts any number in it and could work for hours. Called by tasks/model/base_model.py and
flows/views/base_model_shapes.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from schemas.errors import ConfigError
from schemas.regular_file import open_regular

MAX_BYTES = 10_000_000
MAX_VALUES: Mapping[str, int] = {
    "num_hidden_layers": 1_000,
    "hidden_size": 1_000_000,
    "intermediate_size": 10_000_000,
    "num_attention_heads": 10_000,
    "num_key_value_heads": 10_000,
    "head_dim": 100_000,
    "vocab_size": 10_000_000,
    "max_position_embeddings": 1_000_000_000,
}
"""About ten times the values of the largest models."""
ATTENTION = ("eager", "sdpa")
"""Other names can refer to code that transformers would download from the hub and run."""


def read_config(path: Path) -> dict[str, Any]:
    """The fields of the file.

    Raises:
        ConfigError: TG0171, it cannot be read, is not a JSON object, or a shape is not plausible; TG0173, it names its
            own attention code.
    """
    where = str(path)
    try:
        with open_regular(path) as stream:
            config = orjson.loads(stream.read(MAX_BYTES))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not JSON"
        raise ConfigError(f"config.json cannot be read: {why}", code="TG0171", where=where) from None
    if not isinstance(config, dict):
        raise ConfigError("config.json is not a JSON object", code="TG0171", where=where)
    for name, value in _fields(config):
        most = MAX_VALUES.get(name)
        if most is not None and value is not None and not (type(value) is int and 0 < value <= most):
            raise ConfigError(
                f"config.json: {name} is {str(value)[:40]}; allowed is a number from 1 to {most:,}",
                code="TG0171",
                where=where,
                hint="use the model's own config.json",
            )
        if name.endswith("attn_implementation") and value is not None and value not in ATTENTION:
            raise ConfigError(
                f"config.json: {name} is {str(value)[:80]!r}; allowed is {' or '.join(ATTENTION)}",
                code="TG0173",
                where=where,
                hint=f"remove {name} from config.json: a model's own code is never run",
            )
    return config


def _fields(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Names and values, including those of nested configurations."""
    for name, value in config.items():
        if isinstance(value, dict):
            yield from _fields(value)
        else:
            yield name, value
