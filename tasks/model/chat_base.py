"""Give a base model without a chat template one, with its control tokens and their embeddings.

The weights' own files stay as they are: new rows are in a small file next to them, which `tasks.model.base_model` reads
after loading. The files written here travel with the adapter (tasks/model/adapter.py, tasks/release/bundle.py), so that
the adapter and the untouched base are enough to answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from schemas.chat_template import WHERE, ChatTemplate
from schemas.errors import ConfigError, StorageError
from tasks.storage.files import write_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor
    from transformers import PreTrainedModel

RECORD = "chat.json"
ROWS = "added_rows.safetensors"
TEMPLATE, TOKENIZER_CONFIG = "chat_template.jinja", "tokenizer_config.json"
CHAT_FILES = (RECORD, ROWS, TEMPLATE, "tokenizer.json", TOKENIZER_CONFIG)
"""The files that `add_chat_template` writes; `ROWS` only if a token was added."""
_INPUT, _OUTPUT = "embed_tokens.weight", "lm_head.weight"


@dataclass(frozen=True)
class AddedRows:
    """What adding a template changed."""

    n_ids: int
    """Highest token id, plus one."""
    n_weights: int
    """New weights in the embeddings and the output head."""


def add_chat_template(folder: Path, chat: ChatTemplate, *, vocab_size: int) -> AddedRows:
    """Write the template, the tokens that the tokenizer lacks and their first embeddings into a model's folder.

    A new token's row is the mean of the rows of the tokens that wrote its text until now. That alone is never the most
    likely token (a mean exceeds none of its parts), so these rows are trained, with every method.

    Args:
        folder: A base model; files are replaced, not changed in place.
        chat: The template and its tokens.
        vocab_size: Rows of the model's embeddings. Spare ones are used before more are added.

    Raises:
        ConfigError: TG0173, the tokenizer has no tokenizer.json, or tokens are missing and the weights have no
            embeddings by the usual names.
    """
    from tokenizers import AddedToken, Tokenizer

    file = folder / "tokenizer.json"
    if not file.is_file():
        raise ConfigError("the base model has no tokenizer.json to add tokens to", code="TG0173", where=WHERE)
    tokenizer = Tokenizer.from_file(str(file))
    missing = [token for token in chat.tokens if tokenizer.token_to_id(token) is None]
    parts = {token: _parts(tokenizer, token) for token in missing}
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in chat.tokens])
    ids = {token: int(tokenizer.token_to_id(token) or 0) for token in chat.tokens}
    _replace(file, tokenizer.to_str().encode())
    text = chat.written(own_template(folder) or "")
    _replace(folder / TEMPLATE, text.encode())
    _drop_old_template(folder / TOKENIZER_CONFIG)
    n_weights = _write_rows(folder, {ids[token]: parts[token] for token in missing}) if missing else 0
    write_json(
        folder / RECORD,
        {
            "template": chat.name,
            "tokens": ids,
            "added": missing,
            "trained_ids": sorted(ids[token] for token in {*missing, *chat.trained}),
        },
    )
    n_ids = max([vocab_size, *(ids[token] + 1 for token in missing)])
    return AddedRows(n_ids, n_weights if n_ids > vocab_size else 0)


def own_template(folder: Path) -> str | None:
    """The chat template of a model's files, the one for ordinary conversations; None if there is none.

    Raises:
        StorageError: tokenizer_config.json is not a JSON object.
    """
    if (file := folder / TEMPLATE).is_file():
        return file.read_text(encoding="utf-8")
    if not (file := folder / TOKENIZER_CONFIG).is_file():
        return None
    try:
        found = orjson.loads(file.read_bytes()).get("chat_template")
        if isinstance(found, list):  # several by name
            found = {each["name"]: each["template"] for each in found}.get("default")
    except (ValueError, AttributeError, LookupError, TypeError):
        raise StorageError("the file is not a JSON object", code="TG0542", where=str(file)) from None
    return found if isinstance(found, str) and found else None


def trained_ids(folder: Path) -> tuple[int, ...]:
    """The token ids of a base model whose embeddings are trained next to an adapter; empty for most.

    Raises:
        StorageError: the record of the chat template is damaged.
    """
    file = folder / RECORD
    if not file.is_file():
        return ()
    try:
        return tuple(int(number) for number in orjson.loads(file.read_bytes())["trained_ids"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"the chat template's record does not load: {type(error).__name__}", code="TG0542", where=str(file)
        ) from None


def link_chat(bundle: Path, base: Path) -> None:
    """Complete a view of the untouched base model with the chat template that a bundle was trained with, if any."""
    for name in CHAT_FILES if (bundle / RECORD).is_file() else ():
        if (bundle / name).is_file():
            (base / name).symlink_to((bundle / name).resolve())


def grow_embeddings(model: PreTrainedModel, folder: Path) -> None:
    """Resize the loaded model's embeddings for the added tokens, and fill their rows; in place.

    Raises:
        StorageError: the rows are damaged, or not of this model.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = folder / ROWS
    if not file.is_file():
        return
    try:
        added = load_file(file)
        ids, rows = added["ids"], added["input"]
        head = added.get("output")
    except (OSError, SafetensorError, KeyError) as error:
        raise StorageError(
            f"the added rows do not load: {type(error).__name__}", code="TG0542", where=str(file)
        ) from None
    embeddings = model.get_input_embeddings()
    if rows.shape != (len(ids), embeddings.weight.shape[1]):
        raise StorageError("the added rows are of another model", code="TG0542", where=str(file))
    if int(ids.max()) >= len(embeddings.weight):
        model.resize_token_embeddings(int(ids.max()) + 1, mean_resizing=False)
    _fill(model.get_input_embeddings().weight, ids, rows)
    if head is not None:
        _fill(model.get_output_embeddings().weight, ids, head)


def _fill(weight: Tensor, ids: Tensor, rows: Tensor) -> None:
    weight.data[ids.to(weight.device)] = rows.to(weight)


def _parts(tokenizer: Tokenizer, token: str) -> list[int]:
    """The ids that wrote the token's text until now."""
    found: list[int] = tokenizer.encode(token, add_special_tokens=False).ids
    if not found:
        raise ConfigError(f"the tokenizer cannot write {token!r}", code="TG0173", where="train.prompt.added_tokens")
    return found


def _write_rows(folder: Path, parts: dict[int, list[int]]) -> int:
    """Write the rows of new ids, each the mean of those of its parts, in float32; returns how many weights."""
    import torch
    from safetensors.torch import save_file

    inputs, outputs = (_means(folder, name, parts) for name in (_INPUT, _OUTPUT))
    if inputs is None:
        raise ConfigError(
            f"{len(parts)} tokens of the chat template are not in the tokenizer, and the weights have no "
            f"{_INPUT} that could be extended",
            code="TG0173",
            where=WHERE,
            hint="use a template whose tokens the tokenizer has",
        )
    rows = {"input": inputs} if outputs is None else {"input": inputs, "output": outputs}
    save_file({"ids": torch.tensor(list(parts)), **rows}, folder / ROWS, {"format": "pt"})
    return sum(each.numel() for each in rows.values())


def _means(folder: Path, name: str, parts: dict[int, list[int]]) -> Tensor | None:
    """The mean rows of the only tensor with this end of its name; None if no file has it."""
    import torch
    from safetensors import safe_open

    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for found in file.keys():  # noqa: SIM118  not a mapping
                if found.endswith(name):
                    rows = file.get_slice(found)
                    each = [torch.cat([rows[at : at + 1] for at in ids]).float().mean(0) for ids in parts.values()]
                    return torch.stack(each)
    return None


def _drop_old_template(file: Path) -> None:
    """Remove a template from the tokenizer's settings: the one in its own file counts."""
    settings = orjson.loads(file.read_bytes()) if file.is_file() else {}
    settings.pop("chat_template", None)
    file.unlink(missing_ok=True)
    write_json(file, settings)


def _replace(file: Path, content: bytes) -> None:
    """Write a new file: the old one may be a hard link into the cache."""
    file.unlink(missing_ok=True)
    file.write_bytes(content)
