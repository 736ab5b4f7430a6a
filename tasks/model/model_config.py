"""A model's `config.json` as it is trusted: shapes that a model may have, and no code of its own.

What builds a model from it takes every number as it comes, and would be at it for hours. Called by
tasks/model/base_model.py and flows/views/base_model_shapes.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from schemas.errors import ConfigError
from schemas.regular_file import open_regular

MAX_BYTES = 10_000_000
MOST: Mapping[str, int] = {
    "num_hidden_layers": 1_000,
    "hidden_size": 1_000_000,
    "intermediate_size": 10_000_000,
    "num_attention_heads": 10_000,
    "num_key_value_heads": 10_000,
    "head_dim": 100_000,
    "vocab_size": 10_000_000,
    "max_position_embeddings": 1_000_000_000,
}
"""About ten times what the largest models have."""
ATTENTION = ("eager", "sdpa")
"""Other names may stand for code that transformers would fetch from the hub and run."""


def read_config(path: Path) -> dict[str, Any]:
    """The fields of the file.

    Raises:
        ConfigError: TG0171, it cannot be read, is no JSON object, or a shape is no number that a model may have;
            TG0173, it names attention of its own.
    """
    where = str(path)
    try:
        with open_regular(path) as stream:
            config = orjson.loads(stream.read(MAX_BYTES))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no JSON"
        raise ConfigError(f"config.json cannot be read: {why}", code="TG0171", where=where) from None
    if not isinstance(config, dict):
        raise ConfigError("config.json is no JSON object", code="TG0171", where=where)
    for name, value in _fields(config):
        most = MOST.get(name)
        if most is not None and value is not None and not (type(value) is int and 0 < value <= most):
            raise ConfigError(
                f"config.json: {name} is {str(value)[:40]}; allowed is a number from 1 to {most:,}",
                code="TG0171",
                where=where,
                hint="take the model's own config.json",
            )
        if name.endswith("attn_implementation") and value is not None and value not in ATTENTION:
            raise ConfigError(
                f"config.json: {name} is {str(value)[:80]!r}; allowed is {' or '.join(ATTENTION)}",
                code="TG0173",
                where=where,
                hint=f"remove {name} from config.json: code that a model brings along is never run",
            )
    return config


def _fields(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Names and values, those of nested configurations too."""
    for name, value in config.items():
        if isinstance(value, dict):
            yield from _fields(value)
        else:
            yield name, value
