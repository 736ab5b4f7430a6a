"""Which linear layers an adapter goes beside. Called by tasks/model/adapter.py; knows nothing of ranks and files."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Literal

from schemas.errors import ConfigError

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
