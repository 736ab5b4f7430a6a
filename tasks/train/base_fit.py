"""Whether settings and prompts fit the base model, before anything is trained on it.

`base_faults` reads the model's files but no weights, and needs no torch: `validate --data`, `plan` and each run call it
before curation (`flows/run/faults.py`). The steps read prompts and examples as the model will: `flows/prepare.py` and
`flows/finetune.py` put them in front of the training.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from schemas.artifacts import Artifact, DatasetRef, ModelRef, PromptSet
from schemas.chat_template import WHERE, ChatTemplate
from schemas.errors import ConfigError, DataError, StorageError, TrainingError, TunegateError
from schemas.training import TrainSpec
from tasks.extras import missing_packages
from tasks.model.adapter import check_targets, check_whole_rows
from tasks.model.base_model import check_not_quantized, local_place, read_config, read_tokenizer, sizes_in
from tasks.model.chat_base import TOKENIZER_CONFIG, own_template
from tasks.model.chat_codec import ChatCodec, no_template_error, read_turn_form
from tasks.model.chat_format import check_max_length
from tasks.model.convert import read_gguf_config
from tasks.model.generate import check_room, read_items
from tasks.model.model_cache import find_cached, not_cached_error, usable_files
from tasks.model.model_uri import FileUri, HubUri, parse_model_uri
from tasks.model.skeleton import Parts
from tasks.model.text_part import has_text_part, text_fields, text_names
from tasks.step import as_step
from tasks.train.memory import trainable_parameters, trains_experts
from tasks.train.model_shapes import FAST_TYPES, PLAIN_TYPES, ModelDims, not_fast_error

TOKENIZER = "tokenizer.json"
TOKENIZER_FILES = (TOKENIZER, TOKENIZER_CONFIG)


@dataclass(frozen=True)
class FoundBase:
    """What the files of a base model say without its weights."""

    where: Path
    """Its folder or GGUF file."""
    config: Mapping[str, Any]
    """Fields of config.json; of a model that also sees images, those of its text part."""
    matrices: frozenset[str]
    """Names of its weights with two axes, without `.weight`; empty if they are not known."""
    template: str | None
    """Its own chat template."""

    @property
    def tokenizer(self) -> Path | None:
        """Its tokenizer.json; None for a GGUF that has not been converted, or if there is none."""
        file = self.where / TOKENIZER
        return file if file.is_file() else None

    @property
    def context_length(self) -> int:
        """Tokens.

        Raises:
            ConfigError: TG0171, config.json lacks it.
        """
        return sizes_in(self.config, self.where / "config.json")[1]


def find_base(uri: str, *, allow_download: bool, root: Path, cache: Path) -> FoundBase | None:
    """Read the files of a base model; None if it has to be downloaded first. Contacts no service.

    Args:
        root: Base folder of relative `file:` paths.
        cache: Downloads and conversions.

    Raises:
        ConfigError: TG0171, as `fetch_base_model`; TG0173, config.json names code of its own.
        SecurityError: TG0822, the weights are pickles.
        StorageError: TG0542, the weights are damaged.
        DataError: TG0310, the GGUF cannot be converted.
    """
    source = parse_model_uri(uri)
    if isinstance(source, FileUri):
        place = local_place(source, root)
        if place.is_file():
            config, template = read_gguf_config(place)
            return FoundBase(place, config, frozenset(), template)
        usable_files(place)
        return _read_folder(place)
    found = find_cached(source, cache)
    if found is None and isinstance(source, HubUri) and not allow_download:
        raise not_cached_error(source)
    return None if found is None else _read_folder(found)


def _read_folder(folder: Path) -> FoundBase:
    config: Mapping[str, Any] = read_config(folder / "config.json")
    matrices = _matrices(folder)
    if has_text_part(config):
        config, matrices = text_fields(config), text_names(matrices)
    return FoundBase(folder, config, frozenset(matrices), own_template(folder))


def _matrices(folder: Path) -> set[str]:
    """The names of two-dimensional weights without `.weight`, from the headers of the safetensors files."""
    from safetensors import SafetensorError, safe_open

    found: set[str] = set()
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="numpy") as file:
                found |= {name for name in file.keys() if len(file.get_slice(name).get_shape()) == 2}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise StorageError(f"damaged weights: {error}", code="TG0542", where=str(path)) from None
    return {name.removesuffix(".weight") for name in found if name.endswith(".weight")}


def base_faults(
    base: FoundBase, train: TrainSpec, *, max_new_tokens: int, chat: ChatTemplate | None, trains: bool = True
) -> Iterator[TunegateError]:
    """Yield what a training with these settings, or the answers of its model, would fail on whatever the tickets are.

    Args:
        max_new_tokens: Longest answer to a held-out item.
        chat: The declared chat template.
        trains: Whether it is trained here; else only its answers count.
    """
    for check in _checks(base, train, max_new_tokens=max_new_tokens, chat=chat, trains=trains):
        try:
            check()
        except TunegateError as error:
            yield error


def _checks(
    base: FoundBase, train: TrainSpec, *, max_new_tokens: int, chat: ChatTemplate | None, trains: bool
) -> Iterator[Callable[[], object]]:
    dims = None
    try:
        if base.config.get("model_type") not in PLAIN_TYPES and not missing_packages("train"):
            dims = ModelDims.of(base.config)
        context = base.context_length
    except ConfigError as error:
        refusal = error
        yield lambda: _raise(refusal)
        return
    if trains:
        yield lambda: check_max_length(train.max_length, context)
    yield lambda: _check_answer(max_new_tokens, context, where="evaluate.max_new_tokens", code="TG0309")
    if train.validation_items:
        longest = train.validation_max_new_tokens
        yield lambda: _check_answer(longest, context, where="train.validation_max_new_tokens", code="TG0411")
    if train.format == "instruction":
        if base.template is None and (chat is None or chat.text is None):
            yield lambda: _raise(no_template_error())
        elif base.tokenizer is not None:
            yield lambda: _check_turn(base, chat)
    if chat is not None:
        yield lambda: _check_chat(base, train, chat)
    if not trains:
        return
    if train.method != "full":
        if (n_layers := base.config.get("num_hidden_layers")) is not None:
            yield lambda: train.adapter.layers_within(n_layers)
        wanted = train.adapter.target_modules
        if wanted != "all-linear" and base.matrices:
            yield lambda: check_targets(_linear(base.matrices), wanted)
    if dims is not None and dims.counted is not None:
        kind, parts = str(base.config.get("model_type")), dims.counted
        yield lambda: _check_experts(kind, parts, train)
        yield lambda: _check_sharding(kind, dims, parts, train)
        if train.method != "full":
            yield lambda: trainable_parameters(dims, train.adapter)
    if train.four_bits() is not None:
        yield lambda: check_not_quantized(base.config, base.where / "config.json")
    if train.cache_trunk == "on" and (model_type := base.config.get("model_type")) not in FAST_TYPES:
        yield lambda: _raise(not_fast_error(model_type))


def _raise(error: TunegateError) -> None:
    raise error


def _check_experts(kind: str, parts: Parts, train: TrainSpec) -> None:
    if train.method == "qlora" and parts.n_stacked:
        raise ConfigError(
            f"method qlora cannot load a {kind} in 4 bits: {parts.n_stacked / parts.n_parameters:.0%} of its weights "
            "are experts stacked in one parameter, and bitsandbytes quantises linear layers alone", code="TG0111",
            where="train.method", hint="use method: lora, or a base model without experts",
        )  # fmt: skip


def _check_sharding(kind: str, dims: ModelDims, parts: Parts, train: TrainSpec) -> None:
    if train.sharding != "full":
        return
    if not parts.sharded:
        what = f"a {kind}, whose decoder layers are not in model.layers"
    elif trains_experts(dims, train):
        what = f"adapters on the stacked experts of a {kind}"
    else:
        return
    raise ConfigError(
        f"sharding full cannot train {what}", code="TG0111", where="train.sharding", hint="use sharding: none"
    )


def _linear(matrices: Collection[str]) -> set[str]:
    """Without embeddings and output head, which no adapter is put on."""
    return {name for name in matrices if name.rpartition(".")[2] not in ("embed_tokens", "lm_head", "wte", "wpe")}


def _check_answer(n_tokens: int, context: int, *, where: str, code: str) -> None:
    if n_tokens >= context:
        kind = DataError if code.startswith("TG03") else TrainingError
        raise kind(
            f"an answer of {n_tokens} tokens leaves no room for a prompt in the model's context of {context}",
            code=code, where=where, hint=f"set {where} to less than {context}",
        )  # fmt: skip


def _check_turn(base: FoundBase, chat: ChatTemplate | None) -> None:
    """Check that the template writes an answer after its own prompt, and ends it."""
    tokenizer = TokenizerFiles(base, chat)
    read_turn_form(tokenizer, tokenizer.special_ids)


class TokenizerFiles:
    """What filling a chat template needs of a tokenizer, from its files: transformers' class would import torch."""

    def __init__(self, base: FoundBase, chat: ChatTemplate | None) -> None:
        from tokenizers import AddedToken

        self._tokenizer = read_tokenizer(base.where / TOKENIZER)
        if chat is not None:
            self._tokenizer.add_special_tokens([AddedToken(token, special=True) for token in chat.tokens])
        self.chat_template = base.template if chat is None else chat.written(base.template or "")
        file = base.where / TOKENIZER_CONFIG
        settings = orjson.loads(file.read_bytes()) if file.is_file() else {}
        named = {name: value for name, value in settings.items() if name.endswith("_token")}
        texts = {name: value.get("content") if isinstance(value, dict) else value for name, value in named.items()}
        self.special_tokens_map = {name: text for name, text in texts.items() if isinstance(text, str)}
        flagged = {number for number, each in self._tokenizer.get_added_tokens_decoder().items() if each.special}
        named_ids = {self._tokenizer.token_to_id(text) for text in self.special_tokens_map.values()}
        self.special_ids = flagged | {number for number in named_ids if number is not None}

    @property
    def vocabulary(self) -> dict[str, int]:
        """Token -> id, with added tokens."""
        return dict(self._tokenizer.get_vocab(with_added_tokens=True))

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        found: list[int] = self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        return found


def _check_chat(base: FoundBase, train: TrainSpec, chat: ChatTemplate) -> None:
    """Check that the tokens of a declared template can be added and trained, of a base whose tokenizer is there."""
    if base.where.is_file():
        return
    if base.tokenizer is None:
        raise ConfigError("the base model has no tokenizer.json to add tokens to", code="TG0173", where=WHERE)
    tokenizer = read_tokenizer(base.tokenizer)
    missing = [token for token in chat.tokens if tokenizer.token_to_id(token) is None]
    if missing and base.matrices and not any(name.endswith("embed_tokens") for name in base.matrices):
        raise ConfigError(
            f"{len(missing)} tokens of the chat template are not in the tokenizer, and the weights have no embeddings "
            "that could be extended", code="TG0173", where=WHERE,
            hint="use a template whose tokens the tokenizer has",
        )  # fmt: skip
    if train.sharding == "full":
        check_whole_rows(len({*missing, *chat.trained}))


@as_step("fits", libraries=("transformers", "tokenizers", "pyarrow"))
def check_prompts(
    out: Path,
    *,
    model: ModelRef,
    prompts: tuple[PromptSet, ...],
    max_new_tokens: int,
    trains: tuple[TrainSpec, ...] = (),
) -> Artifact:
    """Check that every prompt and its answer fit the model's context; the result is empty.

    Args:
        trains: Trainings on this model. `plan` has checked them, unless the model had to be downloaded first.

    Raises:
        TunegateError: one of `base_faults`.
        ConfigError: TG0173, the tokenizer cannot write conversations, or end them.
        DataError: TG0308, there are no prompts; TG0309, one leaves no room for its answer.
    """
    from tasks.model.base_model import load_tokenizer

    for train in trains:
        # A declared chat template is one of the model's files by now.
        for fault in base_faults(_read_folder(model.root), train, max_new_tokens=max_new_tokens, chat=None):
            raise fault
    tokenizer = load_tokenizer(model)
    for each in prompts:
        items = read_items(each, ChatCodec.of(tokenizer, each.format))
        check_room(items, max_new_tokens, model.context_length)
    return Artifact(root=out)


@as_step("validation_fits", libraries=("datasets", "transformers"))
def check_validation(
    out: Path, *, dataset: DatasetRef, model: ModelRef, validation_items: int, max_new_tokens: int
) -> Artifact:
    """Check that there are validation examples, and some that leave room for an answer; the result is empty.

    Args:
        validation_items: Tickets to answer at each validation; 0 if none is answered.
        max_new_tokens: Longest of these answers.

    Raises:
        TrainingError: TG0411, there are none.
    """
    from tasks.train.answers import choose_items, no_validation_error

    if not dataset.n_validation:
        raise no_validation_error()
    if validation_items:
        choose_items(dataset.root / "validation", validation_items, longest=model.context_length - max_new_tokens)
    return Artifact(root=out)
