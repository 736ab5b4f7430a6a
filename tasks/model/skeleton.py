"""A base model without weights: the modules that transformers would fill, built on torch's meta device.

It takes no memory, whatever the size, and 0.1 to 1 s after the import of torch and transformers. So what a model of any
architecture consists of is counted instead of computed from formulas, and one that cannot be used is named with its
cause before it is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import orjson

from schemas.errors import ConfigError
from tasks.extras import need_extra
from tasks.model.import_once import import_transformers

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedModel

EXPERTS_PER_TOKEN = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "experts_per_token",
    "moe_k",
    "moe_topk",
    "top_k_experts",
)
"""How configurations name the number of experts that read a token."""
_SIZES = ("vocab_size", "max_position_embeddings", "num_hidden_layers")
_KEPT = 32
"""Counts in memory: a plan asks for the same few several times."""


@dataclass(frozen=True)
class Matrix:
    """Matrices of one name and shape."""

    name: str
    """Last part of the module's name, such as `q_proj`; of stacked experts `experts.` and the parameter's name."""
    d_in: int
    d_out: int
    layers: tuple[int, ...]
    """Numbers of the decoder layers that have it."""
    n_experts: int = 1
    """How many of them each layer has, one for each expert."""
    n_active: int = 1
    """How many of these multiply a token."""
    stacked: bool = False
    """One parameter with three axes holds those of all experts, which bitsandbytes does not quantise."""

    @property
    def size(self) -> int:
        """Weights of one."""
        return self.d_in * self.d_out

    @property
    def n_weights(self) -> int:
        """Weights in all layers, of all experts."""
        return len(self.layers) * self.n_experts * self.size


@dataclass(frozen=True)
class Parts:
    """What a skeleton consists of."""

    n_parameters: int
    """A tied head counts once."""
    matrices: tuple[Matrix, ...]
    """Of the decoder layers; without embeddings and output head."""
    tied: bool
    sharded: bool = True
    """Its decoder layers are `model.layers`, which tasks/train/distributed.py shards one by one."""

    @property
    def n_stacked(self) -> int:
        """Weights of stacked experts."""
        return sum(each.n_weights for each in self.matrices if each.stacked)

    @property
    def n_active(self) -> int:
        """Parameters that a token meets: without those of the experts that do not read it."""
        idle = sum(len(each.layers) * (each.n_experts - each.n_active) * each.size for each in self.matrices)
        return self.n_parameters - idle


def full_config(config: Mapping[str, Any]) -> PreTrainedConfig:
    """The configuration with the defaults of its class, which config.json may leave out.

    Raises:
        ConfigError: TG0173, transformers has no such architecture, or cannot read its configuration; TG0112, torch and
            transformers are not installed.
    """
    need_extra("train", what=f"a base model of type {config.get('model_type')}")
    import_transformers()
    from transformers import AutoConfig
    from transformers.utils import logging

    logging.set_verbosity_error()
    fields = dict(config)
    model_type = fields.pop("model_type", None)
    try:
        made: PreTrainedConfig = AutoConfig.for_model(model_type, **fields)
    except Exception as error:  # its checks raise classes of their own, which differ between architectures
        known = "Unrecognized model identifier" not in str(error)
        read = " ".join(str(error).split())
        why = f"its config.json cannot be read: {read}" if known else "the installed transformers does not know it"
        raise _unusable(model_type, why) from None
    return made


def size_of(config: PreTrainedConfig, name: str) -> int | None:
    """A size in the configuration; None if it has none. Where layers differ (Gemma 4's heads), the largest."""
    try:
        found = getattr(config, name, None)
    except RuntimeError:  # transformers names no single number then
        found = max(getattr(config.per_layer_config[layer], name) for layer in range(config.num_hidden_layers))
    return found if isinstance(found, int) else None


def main_size_of(config: PreTrainedConfig, name: str) -> int:
    """A size without which nothing can be counted.

    Raises:
        ConfigError: TG0173, the configuration lacks it, as that of a model of several parts does.
    """
    found = size_of(config, name)
    if not found:
        raise _unusable(config.model_type, f"its config.json has no {name}")
    return found


def with_defaults(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields of a config.json with the sizes that everything here reads, under the names of most architectures.

    Raises:
        ConfigError: as `full_config`, if one of them is missing or has another name.
    """
    if all(config.get(name) is not None for name in _SIZES):
        return config
    whole = full_config(config)
    found = {name: size_of(whole, name) for name in _SIZES}
    return {**config, **{name: value for name, value in found.items() if value is not None}}


def build_skeleton(
    config: Mapping[str, Any], *, dtype: torch.dtype | None = None, attention: str | None = "eager"
) -> PreTrainedModel:
    """The model of a config.json on the meta device.

    Args:
        config: Its fields.
        dtype: Of the weights; None for the one in config.json.
        attention: How attention is computed; None for what a loaded model would do.

    Raises:
        ConfigError: as `full_config`; or TG0173, the architecture does not write text token by token.
    """
    made = full_config(config)
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    if made.is_encoder_decoder:
        raise _unusable(made.model_type, "it reads with an encoder and writes with a decoder; tunegate trains decoders")
    if type(made) in AutoModelForMaskedLM._model_mapping:
        raise _unusable(made.model_type, "it reads text in both directions; tunegate trains decoders")
    if type(made) not in AutoModelForCausalLM._model_mapping:
        raise _unusable(made.model_type, "transformers has no class of it that writes text token by token")
    try:
        with torch.device("meta"):
            settings: dict[str, Any] = {} if attention is None else {"attn_implementation": attention}
            model: PreTrainedModel = AutoModelForCausalLM.from_config(made, dtype=dtype, **settings)
    except Exception as error:  # whatever the architecture's own code raises for these numbers
        raise _unusable(made.model_type, f"its modules cannot be built: {type(error).__name__}: {error}") from None
    return model


def _unusable(model_type: object, why: str) -> ConfigError:
    return ConfigError(
        f"a base model of type {model_type} cannot be used: {why}", code="TG0173", where="train.base_model",
        hint="use a decoder that transformers supports, such as Llama, Mistral, Qwen or Gemma",
    )  # fmt: skip


def parts_of(config: Mapping[str, Any]) -> Parts:
    """Count the parameters of a config.json's model, and its matrices by name and shape.

    Raises:
        ConfigError: as `build_skeleton`.
    """
    return _count(orjson.dumps(dict(config), option=orjson.OPT_SORT_KEYS))


@lru_cache(maxsize=_KEPT)
def _count(config: bytes) -> Parts:
    model = build_skeleton(orjson.loads(config))
    found: dict[tuple[str, int, int, int, bool], list[int]] = {}
    for name, module in model.named_modules():
        layer, own_name = _layer_and_name(name)
        if layer is None:
            continue
        for matrix in _matrices(module):
            short = f"{own_name}.{matrix.name}" if matrix.stacked else own_name
            key = (short, matrix.d_in, matrix.d_out, matrix.n_experts, matrix.stacked)
            found.setdefault(key, []).append(layer)
    per_token = next((n for field in EXPERTS_PER_TOKEN if (n := size_of(model.config, field))), None)
    matrices = []
    for (name, d_in, d_out, n_experts, stacked), layers in found.items():
        numbers = tuple(dict.fromkeys(layers))
        n = n_experts if stacked else len(layers) // len(numbers)
        n_active = min(n, per_token or n) if n > 1 else n
        matrices.append(Matrix(name, d_in, d_out, numbers, n, n_active, stacked))
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    return Parts(
        sum(each.numel() for each in model.parameters()), tuple(matrices),
        tied=head is not None and head.weight is embeddings.weight,
        sharded=hasattr(getattr(model, "model", None), "layers"),
    )  # fmt: skip


def _layer_and_name(full: str) -> tuple[int | None, str]:
    """The decoder layer of a module, None outside of them, and the last part of its name.

    >>> _layer_and_name("model.layers.3.mlp.experts"), _layer_and_name("lm_head")
    ((3, 'experts'), (None, 'lm_head'))
    """
    parts = full.split(".")
    return next((int(part) for part in parts[:-1] if part.isdigit()), None), parts[-1]


def _matrices(module: nn.Module) -> list[Matrix]:
    """A linear layer, or the stacked experts that a module holds as parameters of its own; without names of layers."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    if isinstance(module, nn.Linear):
        return [Matrix("", module.in_features, module.out_features, ())]
    if isinstance(module, Conv1D):
        return [Matrix("", module.nx, module.nf, ())]
    return [
        Matrix(name, *stacked_shape(module, tuple(each.shape)), (), len(each), stacked=True)
        for name, each in module.named_parameters(recurse=False)
        if is_stacked(each)
    ]


def is_stacked(parameter: nn.Parameter) -> bool:
    """Whether a parameter holds the matrices of several experts: three axes, and no filter of a convolution."""
    return parameter.ndim == 3 and math.prod(parameter.shape[1:]) > max(parameter.shape[1:])


def stacked_shape(module: nn.Module, shape: tuple[int, ...]) -> tuple[int, int]:
    """(d_in, d_out) of the experts in a parameter of this shape."""
    last_two = (shape[1], shape[2])
    return last_two if getattr(module, "is_transposed", False) else (last_two[1], last_two[0])
