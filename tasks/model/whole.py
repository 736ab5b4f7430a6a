"""What training made, as one whole model in another program's form, each compared with what the gate judged.

`write_merged` gives a Hugging Face directory, `write_gguf_of` a GGUF file. Nothing leaves this module that was not
read back and found to answer as base and adapter do, on held-out texts. Called by tasks/release/export.py; knows
nothing of registries.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import orjson

from schemas.artifacts import ModelRef, TrainedRef
from schemas.errors import StorageError
from schemas.export import GgufType
from tasks.files import write_json
from tasks.model.answer_engine import stop_ids
from tasks.model.base_model import load_base, load_tokenizer
from tasks.model.chat_codec import ChatCodec, training_template
from tasks.model.convert import convert_gguf
from tasks.model.merge import Parity, Rounded, Stored, check_parity, copy_tokenizer, merge_adapter
from tasks.model.to_gguf import write_gguf

Dtype = Literal["auto", "float32", "bfloat16"]
Texts = Sequence[Sequence[int]]
_ROUNDED: dict[GgufType, Rounded] = {"f32": "float32", "f16": "bfloat16", "bf16": "bfloat16", "q8_0": "q8_0"}


def write_merged(
    model: ModelRef, trained: TrainedRef, *, texts: Texts, stored: Stored, dtype: Dtype, out: Path
) -> Parity:
    """Write base and adapter, or the fully trained model, as one directory that stops where training ended answers.

    Args:
        model: The base.
        trained: What training made of it.
        texts: Held-out texts as ids, to compare on.
        stored: Of the written weights.
        dtype: As the 4-bit base of a qlora adapter is loaded for answering.
        out: An empty directory.

    Raises:
        TrainingError: TG0419, the written model does not answer as its parts.
        StorageError: files missing or damaged.
    """
    whole = _whole(model, trained, stored=stored, dtype=dtype, out=out)
    _say_where_answers_end(whole, trained)
    return check_parity(model, trained, whole, texts=texts, stored=stored, dtype=dtype)


def write_gguf_of(
    model: ModelRef,
    trained: TrainedRef,
    *,
    texts: Texts,
    kind: GgufType,
    dtype: Dtype,
    name: str,
    path: Path,
    scratch: Path,
) -> Parity:
    """Write the GGUF file, read it back into a model, and compare that with base and adapter, tokens and template too.

    Args:
        model: The base.
        trained: What training made of it.
        texts: Held-out texts as ids, to compare on.
        kind: How matrices are stored. f32 must answer the same; how far the others may go is in `merge.BOUNDS`.
        dtype: As the 4-bit base of a qlora adapter is loaded for answering.
        name: Of the model, for people.
        path: The file to write.
        scratch: An empty folder for weights on their way.

    Raises:
        ConfigError: TG0194, a model that has no GGUF form here.
        TrainingError: TG0419, the file's model does not answer as its parts.
        StorageError: TG0546, its tokenizer cuts texts otherwise.
    """
    merged, back = scratch / "merged", scratch / "back"
    for folder in (merged, back):
        folder.mkdir()
    whole = _whole(model, trained, stored="float32", dtype=dtype, out=merged)
    write_gguf(whole, path, kind=kind, name=name)
    convert_gguf(path, back)
    read = whole.model_copy(update={"root": back})
    check_same_tokens(whole, read, texts=texts, where=path)
    return check_parity(model, trained, read, texts=texts, stored=_ROUNDED[kind], dtype=dtype)


def check_same_tokens(model: ModelRef, read: ModelRef, *, texts: Texts, where: Path) -> None:
    """Does the tokenizer that was read back cut and write texts as the model's own?

    Raises:
        StorageError: TG0546, it does not.
    """
    own, other = load_tokenizer(model), load_tokenizer(read)
    said = [str(own.decode(text)) for text in texts]
    wrong = [
        what
        for what, same in {
            "texts": all(own.encode(text) == other.encode(text) for text in said),
            "special tokens": own.all_special_ids == other.all_special_ids,
            "the chat template": training_template(own) == training_template(other),
        }.items()
        if not same
    ]
    if wrong:
        raise StorageError(
            f"read back, the tokenizer is another one: it differs in {', '.join(wrong)}",
            code="TG0546",
            where=str(where),
            hint="export it as `merged`; a tokenizer that this writer does not know is a fault worth reporting",
        )


def _whole(model: ModelRef, trained: TrainedRef, *, stored: Stored, dtype: Dtype, out: Path) -> ModelRef:
    """The model as one directory, without a proof."""
    import torch

    if trained.method != "full":
        return merge_adapter(model, trained, out=out, stored=stored, dtype=dtype)
    loaded = load_base(model.model_copy(update={"root": trained.root}), dtype=torch.float32)
    copy_tokenizer(model.root, out)
    loaded.to(torch.float32 if stored == "float32" else torch.bfloat16).save_pretrained(out)
    return model.model_copy(update={"root": out, "digest": "", "uri": f"file:{out.name}"})


def _say_where_answers_end(whole: ModelRef, trained: TrainedRef) -> None:
    """Write the stop tokens and the template that training used, for programs that know only these files."""
    import torch

    codec = ChatCodec.of(load_tokenizer(whole), trained.format)
    stops = sorted(stop_ids(codec, load_base(whole, dtype=torch.bfloat16)))
    settings = whole.root / "generation_config.json"
    said = orjson.loads(settings.read_bytes()) if settings.is_file() else {}
    write_json(settings, {**said, "eos_token_id": stops[0] if len(stops) == 1 else stops, "do_sample": False})
    template = training_template(codec.tokenizer)
    if template is not None:
        (whole.root / "chat_template.jinja").write_text(template, encoding="utf-8")
