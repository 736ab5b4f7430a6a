"""A tokenizer's files as GGUF metadata: tokens, their kinds, merges, special tokens, the chat template of training.

The other direction of `tokenizer_from_gguf.py`, and as narrow: what that one cannot read back is not written, because
nobody could check it here. Called by tasks/model/to_gguf.py; knows nothing of weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from schemas.artifacts import ModelRef
from schemas.errors import ConfigError
from tasks.model.base_model import load_tokenizer
from tasks.model.chat_codec import ChatCodec, training_template

if TYPE_CHECKING:
    from gguf import GGUFWriter

_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5
"""`tokenizer.ggml.token_type`."""
_SMOLLM = [
    {"type": "Digits", "individual_digits": True},
    {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
]
"""The splitting that ggml calls `smollm`: one digit at a time, then GPT-2's byte-level splitting."""


@dataclass(frozen=True)
class GgufVocabulary:
    """What stands in the file, by token id."""

    tokens: list[str]
    types: list[int]
    merges: list[str]


def read_vocabulary(model: ModelRef) -> GgufVocabulary:
    """The vocabulary of `tokenizer.json`; ids that no token has are filled up to the model's `vocab_size`.

    Raises:
        ConfigError: TG0194, a tokenizer other than byte-level BPE with SmolLM's splitting.
    """
    stored: dict[str, Any] = orjson.loads((model.root / "tokenizer.json").read_bytes())
    kind, splitting = stored["model"].get("type"), _splitting(stored.get("pre_tokenizer"))
    if kind != "BPE" or splitting != _SMOLLM or stored.get("normalizer") is not None:
        raise no_gguf_form(f"a tokenizer of type {kind!r} whose splitting is not SmolLM's", model)
    by_id: dict[int, str] = {number: token for token, number in stored["model"]["vocab"].items()}
    types = dict.fromkeys(by_id, _NORMAL)
    for added in stored["added_tokens"]:
        by_id[added["id"]] = added["content"]
        types[added["id"]] = _CONTROL if added["special"] else _USER_DEFINED
    if len(by_id) > model.vocab_size or max(by_id) >= model.vocab_size:
        raise no_gguf_form(f"{len(by_id)} tokens for {model.vocab_size} rows of the embedding", model)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in stored["model"]["merges"]]
    ids = range(model.vocab_size)
    return GgufVocabulary(
        tokens=[by_id.get(number, f"[PAD{number}]") for number in ids],
        types=[types.get(number, _UNUSED) for number in ids],
        merges=merges,
    )


def add_tokenizer(writer: GGUFWriter, model: ModelRef) -> None:
    """Write the tokenizer of the model's directory and, where it has one, its chat template.

    Raises:
        ConfigError: as `read_vocabulary`.
    """
    vocabulary, tokenizer = read_vocabulary(model), load_tokenizer(model)
    if tokenizer.encode("x") != tokenizer.encode("x", add_special_tokens=False):
        raise no_gguf_form("a tokenizer that puts tokens around every text", model)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    roles = {
        "bos": tokenizer.bos_token_id,
        "eos": tokenizer.eos_token_id,
        "pad": tokenizer.pad_token_id,
        "unk": tokenizer.unk_token_id,
    }
    template = training_template(tokenizer)
    if template is not None:
        writer.add_chat_template(template)
        roles["eot"] = ChatCodec.of(tokenizer, "instruction").end_id  # where llama.cpp ends an answer
    for role, number in roles.items():
        if number is not None:
            getattr(writer, f"add_{role}_token_id")(number)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)


def no_gguf_form(what: str, model: ModelRef) -> ConfigError:
    """The error for a model that cannot be written and read back here."""
    return ConfigError(
        f"this model has no GGUF form here: {what}; written are Llama models with plain rotary embeddings, without "
        "biases, whose tokenizer is byte-level BPE with SmolLM's splitting",
        code="TG0194",
        where=str(model.root),
        hint="export it as `merged`: llama.cpp's convert_hf_to_gguf.py reads that folder",
    )


def _splitting(stored: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    parts = (stored or {}).get("pretokenizers", [stored or {}])
    kept = ("type", "individual_digits", "add_prefix_space", "use_regex")
    return [{name: part[name] for name in kept if name in part} for part in parts]
