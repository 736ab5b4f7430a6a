"""Which layers an adapter goes into, and beside which of their modules. Called by tasks/model/adapter.py; knows
nothing of ranks and files."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Literal

from schemas.errors import ConfigError
from schemas.training import AdapterSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def target_names(base: PreTrainedModel, wanted: Literal["all-linear"] | tuple[str, ...]) -> list[str]:
    """The names that PEFT shall look for, sorted; `all-linear` is every linear layer but the output head.

    PEFT itself complains only when no name at all is found, so that a misspelt one among several would be ignored.

    Raises:
        ConfigError: a name that no linear layer has.
    """
    from torch import nn

    head = base.get_output_embeddings()
    found = {name for name, module in base.named_modules() if isinstance(module, nn.Linear) and module is not head}
    short = sorted({name.rpartition(".")[2] for name in found})
    if wanted == "all-linear":
        return short
    for name in wanted:
        if not any(full == name or full.endswith(f".{name}") for full in found):
            close = difflib.get_close_matches(name, short, n=1)
            raise ConfigError(
                f"the model has no linear layer {name!r}; it has {', '.join(short)}",
                code="TG0181",
                where="train.adapter.target_modules",
                hint=f"did you mean {close[0]!r}?" if close else "use all-linear",
            )
    return sorted(set(wanted))


def layer_numbers(base: PreTrainedModel, adapter: AdapterSpec) -> list[int] | None:
    """The transformer layers to adapt, from 0; None when all are.

    Raises:
        ConfigError: more top layers than the model has (TG0180), or the number of a layer that it has not (TG0186).
    """
    n_layers = int(base.config.num_hidden_layers)
    if adapter.top_layers is not None and adapter.top_layers > n_layers:
        raise ConfigError(
            f"top_layers is {adapter.top_layers}, the model has {n_layers} layers",
            code="TG0180",
            where="train.adapter.top_layers",
        )
    chosen = list(adapter.layers_of(n_layers))
    beyond = [number for number in chosen if number >= n_layers]
    if beyond:
        raise ConfigError(
            f"there is no layer {beyond[0]}, the model has layers 0 to {n_layers - 1}",
            code="TG0186",
            where="train.adapter.layers",
            hint="layers are counted from 0; top_layers counts from the end",
        )
    return None if len(chosen) == n_layers else chosen
