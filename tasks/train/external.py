"""A candidate that was trained elsewhere, taken in place of a training's result: a PEFT adapter or a merged model.

Its weights must be safetensors, its base the pipeline's, its tensors those that the base has places for, and its chat
template must write what the pipeline's writes: the candidate is prompted and served as the pipeline declares, and with
another prompt than it learned it would lose whatever it is worth. What cannot be compared is a warning of the result.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from schemas.artifacts import Artifact, ModelRef, TrainedRef
from schemas.errors import ConfigError, DataError, StorageError, TrainingError
from schemas.regular_file import open_regular
from schemas.training import Format
from tasks.model.adapter import CONFIG, SETTINGS, WEIGHTS, check_adapter
from tasks.model.base_model import MAX_BYTES, read_config
from tasks.model.chat_base import CHAT_FILES, RECORD, ROWS, own_template
from tasks.model.chat_codec import fill_template
from tasks.model.merge import copy_tokenizer
from tasks.model.model_cache import cached_candidate, candidate_files, candidate_place, not_cached_error
from tasks.model.model_uri import REGISTRY, FileUri, HubUri, PypiUri, parse_model_uri
from tasks.model.text_part import TEXT_PART, has_text_part, keep_text_part
from tasks.step import as_step
from tasks.storage.files import sha256_file, sha256_json, write_json
from tasks.tickets.prompts import Message
from tasks.train.base_fit import TOKENIZER, FoundBase, TokenizerFiles

if TYPE_CHECKING:
    from torch import Tensor

WHERE = "train.model"
_MERGE = "merge it into its base (`merge_and_unload`, `save_pretrained`) and name the merged folder"
_IGNORED = frozenset({
    "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode", "fan_in_fan_out", "bias",
    "eva_config", "megatron_core", "megatron_config", "qalora_group_size", "ensure_weight_tying", "runtime_config",
    "init_lora_weights", "peft_type",
})  # fmt: skip
"""Settings of adapter_config.json that change no answer of a saved adapter, or are checked by themselves."""
_KEEPS_BASE = (True, False, "gaussian", "orthogonal", "eva")
"""`init_lora_weights` that leave the base's weights as they were."""
_GENERATION = re.compile(r"(\{%-?\s*)(end)?generation(\s*-?%\})")
"""Tags that mark what carries loss in TRL's templates; they write nothing."""
_QUESTION: Message = {"role": "user", "content": "Where is my parcel?"}
_ANSWER: Message = {"role": "assistant", "content": "It comes on Friday."}
_PROBES: tuple[tuple[Sequence[Message], bool], ...] = (
    ([_QUESTION], True),
    ([{"role": "system", "content": "Answer tickets."}, _QUESTION], True),
    ([_QUESTION, _ANSWER, _QUESTION], True),
    ([_QUESTION, _ANSWER], False),
)
"""Conversations that both templates must write alike, and whether an answer is to follow."""


@dataclass(frozen=True)
class ExternalModel:
    """The files of a candidate, as far as they say something without torch."""

    folder: Path
    files: tuple[Path, ...]
    """Those that are used."""
    adapter: Mapping[str, Any] | None
    """Fields of adapter_config.json, completed with PEFT's defaults; None for a whole model."""

    @property
    def named_base(self) -> str:
        """What an adapter calls its base: a name on the hub, or a path on the machine that trained it."""
        return str((self.adapter or {}).get("base_model_name_or_path") or "")


def find_candidate(address: str, *, allow_download: bool, root: Path, cache: Path) -> Path | None:
    """Return the candidate's folder on this machine; None if it has to be downloaded first. Contacts no service.

    Args:
        address: As `train.model`.
        root: Folder that a relative path starts at.
        cache: Downloads.

    Raises:
        ConfigError: TG0171, there is no such folder, or it must not be downloaded.
    """
    if address.startswith(REGISTRY):
        return None
    if address.startswith("hf://"):
        hub = parse_model_uri(address)
        if not isinstance(hub, HubUri):
            raise TypeError(address)
        place = candidate_place(hub, cache)
        if not place.is_dir() and not allow_download:
            raise not_cached_error(hub)
        return place if place.is_dir() else None
    folder = (root / address.removeprefix("file://").removeprefix("file:")).expanduser()
    if not folder.is_dir():
        raise ConfigError(
            f"{folder} is not a folder" if folder.exists() else f"{folder} does not exist", code="TG0171", where=WHERE,
            hint="relative paths start at the folder of pipelines.yaml",
        )  # fmt: skip
    return folder


def fingerprint_candidate(address: str, *, root: Path) -> str:
    """Return a digest that changes with the candidate: of a folder's files, else of the address.

    Raises:
        TunegateError: as `find_candidate` and `candidate_files`.
    """
    if address.startswith(("hf://", REGISTRY)):
        return sha256_json(address)
    folder = find_candidate(address, allow_download=False, root=root, cache=root)
    return sha256_json({path.name: sha256_file(path) for path in candidate_files(folder or root)})


def read_candidate(folder: Path) -> ExternalModel:
    """Read which files there are, and an adapter's settings.

    Raises:
        ConfigError: TG0171, files are missing or cannot be read; TG0173, the model needs code of its own or is
            quantised, or the adapter is of a kind that PEFT's LoRA on a plain base cannot repeat.
        SecurityError: TG0822, the weights are pickles.
    """
    files = tuple(candidate_files(folder))
    if (folder / CONFIG).is_file():
        return ExternalModel(folder, files, _read_adapter(folder / CONFIG))
    config = read_config(folder / "config.json")
    for name in ("quantization_config", "auto_map"):
        if config.get(name):
            what = "is quantised" if name == "quantization_config" else "needs code of its own, which is never run"
            raise ConfigError(
                f"the model {what}", code="TG0173", where=str(folder / "config.json"),
                hint="name the model in full precision, of an architecture that transformers has",
            )  # fmt: skip
    return ExternalModel(folder, files, None)


def _read_adapter(file: Path) -> dict[str, Any]:
    try:
        with open_regular(file) as stream:
            settings = orjson.loads(stream.read(MAX_BYTES))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{CONFIG} cannot be read: {type(error).__name__}", code="TG0171", where=str(file),
            hint="copy the file that `save_pretrained` wrote",
        ) from None  # fmt: skip
    if not isinstance(settings, dict):
        raise ConfigError(f"{CONFIG} is not a JSON object", code="TG0171", where=str(file))

    def refuse(what: str, hint: str = _MERGE) -> ConfigError:
        return ConfigError(f"the adapter {what}", code="TG0173", where=str(file), hint=hint)

    if (kind := settings.get("peft_type")) != "LORA":
        raise refuse(f"is of type {str(kind)[:40]!r}; only LORA is read")
    if (task := settings.get("task_type")) not in (None, "CAUSAL_LM"):
        raise refuse(f"is for the task {str(task)[:40]!r}, and not CAUSAL_LM", "name an adapter of a language model")
    if settings.get("bias", "none") != "none":
        raise refuse(f"trains biases (bias: {settings['bias']!s:.40}), which no file of it can be checked for")
    if (start := settings.get("init_lora_weights", True)) not in _KEEPS_BASE:
        raise refuse(
            f"began with init_lora_weights {str(start)[:40]!r}, which changes the weights of its base",
            "save it with `path_initial_model_for_weight_conversion`, which makes a plain adapter of it",
        )
    known = {**_DEFAULTS, "task_type": "CAUSAL_LM", **{name: settings[name] for name in _DEFAULTS if name in settings}}
    known |= {"task_type": "CAUSAL_LM", "base_model_name_or_path": settings.get("base_model_name_or_path")}
    known["revision"] = settings.get("revision")
    for name, value in settings.items():
        if name not in known and name not in _IGNORED and value:
            raise refuse(f"uses {name[:60]}, which cannot be repeated here")
    rank = known["r"]
    if type(rank) is not int or not 1 <= rank <= 65_536:
        raise refuse(f"has rank {str(rank)[:40]}; allowed is a whole number from 1", "copy its own adapter_config.json")
    for name in _DEFAULTS:
        if not _TYPES.get(name, _is_flag)(known[name]):
            raise refuse(f"has {name} {str(known[name])[:40]!r}, which PEFT never writes", f"copy its own {CONFIG}")
    return known


_DEFAULTS: Mapping[str, Any] = {
    "r": 8, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": None, "layers_to_transform": None,
    "use_rslora": False, "use_dora": False, "task_type": None, "trainable_token_indices": None,
    "target_parameters": None, "rank_pattern": {}, "alpha_pattern": {},
}  # fmt: skip
"""Settings from which an adapter is rebuilt, with PEFT's defaults: older releases do not write all of them."""


def _is_flag(value: object) -> bool:
    return value is None or isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _are_names(value: object) -> bool:
    return value is None or isinstance(value, str) or _are(value, str)


def _are_indices(value: object) -> bool:
    return value is None or type(value) is int or _are(value, int)


def _are(values: object, kind: type) -> bool:
    return isinstance(values, list) and all(type(each) is kind for each in values)


def _is_pattern(value: object) -> bool:
    return value is None or (isinstance(value, dict) and all(_is_number(each) for each in value.values()))


def _are_tokens(value: object) -> bool:
    return _are_indices(value) or (isinstance(value, dict) and all(_are(each, int) for each in value.values()))


_TYPES: Mapping[str, Callable[[object], bool]] = {
    "r": _is_number, "lora_alpha": _is_number, "lora_dropout": _is_number, "target_modules": _are_names,
    "target_parameters": _are_names, "layers_to_transform": _are_indices, "rank_pattern": _is_pattern,
    "alpha_pattern": _is_pattern, "trainable_token_indices": _are_tokens, "task_type": _are_names,
}  # fmt: skip
"""Setting -> whether a value is of a type that PEFT can read; the others are flags."""


def check_base(candidate: ExternalModel, *, base_model: str, base: Path | None, root: Path) -> str | None:
    """Check that an adapter was trained on the declared base; return a warning if only their names could be compared.

    By digest where the adapter names a commit, or a folder that is on this machine.

    Args:
        base_model: Address of the pipeline's base model.
        base: The folder with its files; None if it is not here.
        root: Folder of pipelines.yaml, which a path may start at.

    Raises:
        TrainingError: TG0403, it is another base, or the adapter does not say which.
    """
    if candidate.adapter is None:
        return None  # a merged model has a base of its own; its tensors are compared
    named, revision = candidate.named_base, str(candidate.adapter.get("revision") or "")
    declared = parse_model_uri(base_model)
    where = str(candidate.folder / CONFIG)
    if not named:
        raise TrainingError(
            "the adapter does not say which base model it was trained on", code="TG0403", where=where,
            hint="write it into base_model_name_or_path",
        )  # fmt: skip
    if named == base_model and isinstance(declared, HubUri | PypiUri):
        return None
    if isinstance(declared, HubUri) and named == declared.repo:
        if revision == declared.revision:
            return None
        if re.fullmatch(r"[0-9a-f]{40}", revision):
            raise _other_base(f"{named} at {revision[:12]}", f"commit {declared.revision[:12]}", where)
        return _by_name(named, base_model)
    folder = next((each for each in (Path(named), root / named) if _is_model(each)), None)
    if folder is not None and base is not None and not (base / TEXT_PART).is_file():
        if _weights(folder) == _weights(base):
            return None
        raise _other_base(f"{named}, whose weights differ", _short(base_model), where)
    if _base_name(named) != _base_name(_path_of(declared)):
        raise _other_base(named, _short(base_model), where)
    return _by_name(named, base_model)


def _is_model(folder: Path) -> bool:
    try:
        return (folder / "config.json").is_file()
    except OSError:  # a name that no path can have
        return False


def _weights(folder: Path) -> frozenset[str]:
    return frozenset(sha256_file(path) for path in folder.glob("*.safetensors") if path.name != ROWS)


def _path_of(uri: FileUri | HubUri | PypiUri) -> str:
    return uri.path if isinstance(uri, FileUri) else uri.repo if isinstance(uri, HubUri) else uri.member


def _base_name(path: str) -> str:
    """The last part of a name or path, without the ending of a GGUF file and without case.

    >>> _base_name("llm/SmolLM2-135M-Instruct.Q4_1.gguf"), _base_name("HuggingFaceTB/SmolLM2-135M-Instruct/")
    ('smollm2-135m-instruct', 'smollm2-135m-instruct')
    """
    last = path.split("#")[0].rstrip("/").replace("\\", "/").rpartition("/")[2].partition("@")[0]
    return re.sub(r"([.-](I?Q\d\w*|BF16|F16|F32))?\.gguf$", "", last, flags=re.IGNORECASE).casefold()


def _short(uri: str) -> str:
    return uri.split("#")[0]


def _by_name(named: str, base_model: str) -> str:
    return (
        f"the adapter names its base as {named}: that it is {_short(base_model)} was checked by name, and not by digest"
    )


def _other_base(named: str, declared: str, where: str) -> TrainingError:
    return TrainingError(
        f"the adapter was trained on {named[:200]}, and train.base_model is {declared}", code="TG0403", where=where,
        hint="declare the base model that it was trained on; if it is the same, correct base_model_name_or_path",
    )  # fmt: skip


def check_template(candidate: ExternalModel, *, base: Path, form: Format) -> Iterator[str]:
    """Compare the tokenizer in the candidate's folder with the base's; yield what could not be compared.

    Args:
        base: The base model's folder, with the chat template that the pipeline declares.
        form: instruction compares what the chat templates write, completion the token that ends a text.

    Raises:
        TrainingError: TG0403, they differ.
    """
    folder = candidate.folder
    if not (folder / TOKENIZER).is_file() or not (base / TOKENIZER).is_file():
        yield f"there is no {TOKENIZER} next to the model, so template and special tokens were not compared"
        return
    theirs, ours = (
        TokenizerFiles(FoundBase(each, {}, frozenset(), own_template(each)), None) for each in (folder, base)
    )
    where = str(folder / TOKENIZER)
    here, there = ours.vocabulary, theirs.vocabulary
    moved = [token for token in here if there.get(token) != here[token]]
    if moved:
        raise _differs(f"{len(moved):,} tokens, e.g. {min(moved)!r}, have another id or none", where)
    if added := sorted(set(there) - set(here)):
        yield f"the model's tokenizer has {len(added):,} tokens more than the base's, such as {added[0]!r}"
    ends = [each.special_tokens_map.get("eos_token") for each in (ours, theirs)]
    if ends[0] != ends[1]:
        if form == "completion":
            raise _differs(f"texts end with {ends[1]!r}, and here with {ends[0]!r}", where)
        yield f"the model's tokenizer ends texts with {ends[1]!r}, the base's with {ends[0]!r}"
    if form == "completion":
        return
    if not theirs.chat_template:
        yield "there is no chat template next to the model, so that it was not compared"
        return
    theirs.chat_template = _GENERATION.sub(_plain_tag, theirs.chat_template)
    for turns, generation in _PROBES:
        written = [_written(each, turns, generation) for each in (ours, theirs)]
        if written[0] != written[1]:
            roles = ", ".join(turn["role"] for turn in turns)
            shown = " and ".join("nothing" if each is None else repr(each[:200]) for each in reversed(written))
            raise _differs(
                f"for turns {roles} the chat templates of model and pipeline write {shown}",
                where, hint="set train.prompt.chat_template to the chat_template.jinja that it was trained with",
            )  # fmt: skip


def _plain_tag(found: re.Match[str]) -> str:
    return f"{found[1]}{'endif' if found[2] else 'if true'}{found[3]}"


def _written(tokenizer: TokenizerFiles, turns: Sequence[Message], generation: bool) -> str | None:
    """What the template writes; None if it rejects the turns."""
    try:
        return fill_template(tokenizer, turns, generation=generation)
    except DataError:
        return None


def _differs(what: str, where: str, hint: str = "declare the base model and the prompt that it was trained with") -> (
    TrainingError
):  # fmt: skip
    return TrainingError(f"the model was trained with another tokenizer: {what}", code="TG0403", where=where, hint=hint)


@as_step(
    "train", libraries=("torch", "transformers", "peft", "safetensors", "tokenizers"), context=("root", "cache"),
    memory_gb=2.0,
)  # fmt: skip
def take_external(
    out: Path,
    *,
    model: ModelRef,
    address: str,
    form: Format,
    allow_download: bool,
    root: Path,
    cache: Path,
    registered: Artifact | None = None,
) -> TrainedRef:
    """Check a candidate that was trained elsewhere, and copy it to `out` in the form of a training's result.

    Args:
        model: The pipeline's base model, with its chat template.
        address: As `train.model`.
        form: How it is prompted.
        allow_download: Whether the hub may be used.
        root: Folder of pipelines.yaml.
        cache: Downloads.
        registered: Its files, of a version in MLflow's registry.

    Raises:
        ConfigError: TG0171, TG0173, as `read_candidate`; TG0181, the base lacks a module that the adapter changes.
        SecurityError: TG0822, the weights are pickles.
        TrainingError: TG0403, it was trained on another base, or with another template.
        StorageError: TG0535, tensors are missing, unknown, of another shape or not finite; TG0542, they are damaged.
        ServiceError: the hub does not answer.
    """
    folder = _folder_of(registered) if registered is not None else _fetched(address, allow_download, root, cache)
    candidate = read_candidate(folder)
    doubt = check_base(candidate, base_model=model.uri, base=model.root, root=root)
    warnings = [*filter(None, [doubt]), *check_template(candidate, base=model.root, form=form)]
    take = _take_whole if candidate.adapter is None else _take_adapter
    n_weights = take(candidate, model, out)
    write_json(
        out / SETTINGS,
        {
            "external": {
                "address": address, "files": {path.name: sha256_file(path) for path in candidate.files},
                "named_base": candidate.named_base or None, "warnings": warnings,
            },
            "quantization": None,
            "base": {"uri": model.uri, "digest": model.digest},
            "n_trainable": n_weights,
        },
    )  # fmt: skip
    return TrainedRef(
        root=out, method="full" if candidate.adapter is None else "lora", format=form, base_digest=model.digest,
        n_trainable=n_weights, n_steps=0, n_tokens=0, train_loss=None, external=address, warnings=tuple(warnings),
    )  # fmt: skip


def _fetched(address: str, allow_download: bool, root: Path, cache: Path) -> Path:
    folder = find_candidate(address, allow_download=allow_download, root=root, cache=cache)
    hub = parse_model_uri(address) if address.startswith("hf://") else None
    if isinstance(hub, HubUri):  # also verifies one that was downloaded before
        return cached_candidate(hub, cache, allow_download=allow_download)
    if folder is None:
        raise TypeError(f"{address}: its files are a step of their own")
    return folder


def _folder_of(registered: Artifact) -> Path:
    """The folder of a registered model with an adapter, else with a whole model: MLflow's flavours nest them."""
    for name in (CONFIG, "config.json"):
        found = sorted({path.parent for path in registered.root.rglob(name)})
        if len(found) == 1:
            return found[0]
        if found:
            raise ConfigError(
                f"the registered model has {len(found)} files {name}", code="TG0171", where=WHERE,
                hint="register one adapter, or one merged model",
            )  # fmt: skip
    raise ConfigError(
        f"the registered model has neither {CONFIG} nor config.json",
        code="TG0171",
        where=WHERE,
        hint="register the files of a PEFT adapter, or of a merged model",
    )


def _take_adapter(candidate: ExternalModel, model: ModelRef, out: Path) -> int:
    """Copy a checked adapter, and with an added chat template its files; return its number of weights."""
    settings = dict(candidate.adapter or {})
    tensors = _read_tensors(candidate.folder / WEIGHTS)
    try:
        check_adapter(read_config(model.root / "config.json"), settings, tensors)
    except (ConfigError, StorageError) as error:
        error.where = str(candidate.folder / WEIGHTS)
        error.hint = error.hint or f"copy the adapter's own {CONFIG} and weights; if it trains more than LoRA: {_MERGE}"
        raise
    shutil.copyfile(candidate.folder / WEIGHTS, out / WEIGHTS)
    for name in CHAT_FILES if (model.root / RECORD).is_file() else ():
        if (model.root / name).is_file():
            shutil.copyfile(model.root / name, out / name)
    plain = {"peft_type": "LORA", "bias": "none", "inference_mode": True, "base_model_name_or_path": model.uri}
    write_json(out / CONFIG, {**settings, "revision": None, **plain})
    return sum(tensor.numel() for tensor in tensors.values())


def _take_whole(candidate: ExternalModel, model: ModelRef, out: Path) -> int:
    """Copy a checked whole model with the base's tokenizer, as a full training leaves it; return its weights."""
    copy_tokenizer(model.root, out)
    (out / "config.json").unlink()
    (out / "generation_config.json").unlink(missing_ok=True)
    for path in candidate.files:
        if (
            path.suffix == ".safetensors"
            or "index" in path.name
            or path.name in ("config.json", "generation_config.json")
        ):
            shutil.copyfile(path, out / path.name)
    if has_text_part(read_config(out / "config.json")):
        keep_text_part(out)
    tied = bool(read_config(out / "config.json").get("tie_word_embeddings"))
    ours, theirs = (_shapes(each) for each in (model.root, out))
    for shapes in (ours, theirs) if tied else ():
        shapes.pop("lm_head.weight", None)
    where = str(candidate.folder)
    hint = f"declare the base model that it was made of; an adapter that is not merged has {CONFIG}"
    for problem, names in (("lacks", ours.keys() - theirs.keys()), ("has unknown", theirs.keys() - ours.keys())):
        if names:
            raise StorageError(
                f"next to the base model it {problem} {len(names)} tensors, e.g. {min(names)}", code="TG0535",
                where=where, hint=hint,
            )  # fmt: skip
    for name, shape in ours.items():
        wanted = (max(model.vocab_size, shape[0]), *shape[1:]) if _is_by_token(name) else shape
        if theirs[name] not in (shape, wanted):
            raise StorageError(
                f"{name} has shape {theirs[name]}, and the base model's {wanted}", code="TG0535", where=where, hint=hint
            )
    for path in sorted(out.glob("*.safetensors")):
        _read_tensors(path)
    return sum(_size(shape) for shape in theirs.values())


def _is_by_token(name: str) -> bool:
    """Whether a chat template's new tokens add rows to this weight."""
    return name.endswith(("embed_tokens.weight", "lm_head.weight"))


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    from safetensors import SafetensorError, safe_open

    found: dict[str, tuple[int, ...]] = {}
    for path in sorted(each for each in folder.glob("*.safetensors") if each.name != ROWS):
        try:
            with safe_open(path, framework="numpy") as file:
                found |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise StorageError(f"damaged weights: {error}", code="TG0542", where=str(path)) from None
    return found


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file of finite tensors.

    Raises:
        StorageError: TG0542, it is damaged; TG0535, a tensor is not finite.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise StorageError(
            f"damaged weights: {error}", code="TG0542", where=str(path), hint="copy the file again"
        ) from None
    broken = [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    if broken:
        raise StorageError(
            f"{len(broken)} tensors contain NaN or infinity, e.g. {min(broken)}", code="TG0535", where=str(path),
            hint="train it again: no answer of it would mean anything",
        )  # fmt: skip
    return tensors
