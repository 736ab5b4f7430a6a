"""Build a tokenizer from a GGUF file's metadata, as files of a Hugging Face directory.

It knows nothing of weights. Called by tasks/model/convert.py. The rebuilt tokenizer splits text exactly as the model's
own; transformers' GGUF support does not (it separates two line breaks when a digit follows).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from schemas.errors import DataError
from tasks.files import write_json

_CONTROL = 3
"""`tokenizer.ggml.token_type` of control tokens."""
_USER_DEFINED = 4


def write_tokenizer(metadata: Mapping[str, Any], out: Path) -> dict[str, int]:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja.

    Returns:
        Token ids by role (bos, eos, pad, unk), for those in the file.

    Raises:
        DataError: the tokenizer is not byte-level BPE with SmolLM's splitting, or its parts do not match.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    kind, splitting = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
    if (kind, splitting) != ("gpt2", "smollm"):
        raise DataError(
            f"tokenizer {kind!r} with splitting {splitting!r} cannot be read from GGUF, only 'gpt2' with 'smollm' can",
            code="TG0310",
            hint="use the Hugging Face directory of this model (`file:` or `hf://`)",
        )
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    types: list[int] = metadata["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens) or len(types) != len(tokens) or any(len(merge) != 2 for merge in merges):
        raise DataError("tokens, token types and merges do not match", code="TG0310")
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    # ggml's `smollm` splits off single digits, then applies GPT-2's byte-level splitting.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = [token for token, kind in zip(tokens, types, strict=True) if kind == _CONTROL]
    plain = [token for token, kind in zip(tokens, types, strict=True) if kind == _USER_DEFINED]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in plain])
    tokenizer.save(str(out / "tokenizer.json"))

    roles = _roles(metadata, len(tokens))
    write_json(
        out / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": metadata["llama.context_length"],
            "clean_up_tokenization_spaces": False,
            "add_prefix_space": False,
            "additional_special_tokens": control,
            **{f"{role}_token": tokens[number] for role, number in roles.items()},
        },
    )
    template = metadata.get("tokenizer.chat_template")
    if template:
        (out / "chat_template.jinja").write_text(template, encoding="utf-8")
    return roles


def _roles(metadata: Mapping[str, Any], n_tokens: int) -> dict[str, int]:
    names = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
    found = {role: metadata.get(f"tokenizer.ggml.{name}_token_id") for role, name in names.items()}
    roles = {role: int(number) for role, number in found.items() if number is not None}
    if any(number >= n_tokens for number in roles.values()):
        raise DataError("a special token is outside the vocabulary", code="TG0310")
    return roles
