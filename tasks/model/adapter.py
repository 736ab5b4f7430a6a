"""The trainable part of a model: LoRA factors next to frozen weights, or all weights; saved and loaded strictly."""

from __future__ import annotations

import difflib
import logging
import re
import sys
import warnings
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import orjson

from schemas.artifacts import ModelRef, TrainedRef
from schemas.errors import ConfigError, StorageError, TrainingError
from schemas.training import AdapterSpec, QuantizationSpec, TrainSpec
from tasks.model.base_model import load_base, resolve_dtype
from tasks.model.chat_base import CHAT_FILES, RECORD, trained_ids
from tasks.model.skeleton import build_skeleton, is_stacked
from tasks.storage.files import write_json

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig
    from torch import Tensor, nn
    from transformers import PreTrainedModel

# PEFT imports bitsandbytes, which then runs a kernel from the hub on some processors, without a setting against it, and
# logs each time that it is missing. An entry of None makes every `import kernels` fail.
sys.modules["kernels"] = None  # type: ignore[assignment]
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
SETTINGS = "training.json"
"""`load_trained` reads the 4-bit settings from it; written by tasks/train/part.py."""
_DECIDE = (
    "r", "lora_alpha", "lora_dropout", "target_modules", "layers_to_transform", "use_rslora", "use_dora", "task_type",
)  # fmt: skip
"""Settings in `adapter_config.json` from which an adapter is rebuilt."""
_MAMBA = ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")
"""Architectures whose `out_proj` PEFT refuses to adapt: their kernels read its weight past the module."""
_DECIDE_PARTS = ("trainable_token_indices", "target_parameters", "rank_pattern", "alpha_pattern")
"""The same of trained tokens and experts; PEFT's defaults where the file lacks them."""


def open_for_training(model: ModelRef, spec: TrainSpec, *, device: torch.device | None = None) -> nn.Module:
    """Load the base model, prepared for `spec.method`, in train mode.

    lora: base frozen in `spec.dtype`, LoRA factors in float32. qlora: the same on a 4-bit base. full: everything
    trains, in float32, because a step of 1e-5 vanishes in a bfloat16 weight.

    Args:
        model: The base.
        spec: The settings.
        device: As for `load_base`; a 4-bit base always gets its default.

    Raises:
        ConfigError: the model lacks a target module, or a layer.
        TrainingError: the 4-bit load left linear layers or stacked experts in full precision.
    """
    import torch

    dtype = resolve_dtype(spec.dtype)
    if spec.method == "full":
        whole: nn.Module = load_base(model, dtype=torch.float32, device=device)
        return whole.requires_grad_(True).train()
    base = _open_base(model, dtype, spec.four_bits(), device)
    rows = trained_ids(model.root)
    if spec.sharding == "full":
        check_whole_rows(len(rows))
    return attach_adapter(base, spec.adapter, seed=spec.seed, rows=rows).train()


def check_whole_rows(n_rows: int) -> None:
    """Check that a sharded training trains no rows of the embeddings.

    Raises:
        ConfigError: TG0111, it does.
    """
    if n_rows:
        raise ConfigError(
            f"sharding full cannot train the embeddings of the chat template's {n_rows} tokens",
            code="TG0111",
            where="train.sharding",
            hint="use sharding: none, or a chat template whose tokens the base model has",
        )


def continue_from(model: nn.Module, start: TrainedRef) -> None:
    """Give an adapter that was opened for training the weights of an earlier one; in place.

    Raises:
        StorageError: its file is missing or damaged, or its tensors are not those of this adapter.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = start.root / WEIGHTS
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise StorageError(
            f"the adapter does not load: {type(error).__name__}", code="TG0510", where=str(file)
        ) from error
    copy_strictly(tensors, trainable_tensors(model), where=file)


def attach_adapter(base: PreTrainedModel, adapter: AdapterSpec, *, seed: int, rows: Sequence[int] = ()) -> nn.Module:
    """Freeze `base` and add LoRA factors to the target layers: `W + (alpha / rank) * B @ A`, A random, B zero.

    rsLoRA divides alpha by the square root of the rank; DoRA also trains the norm of each row of that sum.

    Args:
        base: Changed in place; PEFT offers no other way.
        adapter: Rank, scale, dropout, targets.
        seed: Seed of A. The caller's random state does not change.
        rows: Token ids whose embeddings are trained, too, in float32; of an untied output head also its rows.

    Raises:
        ConfigError: no linear layer has the name of a target module, or the model does not have these layers.

    Source: Hu et al., LoRA (2021); Kalajdzievski, rsLoRA (2023); Liu et al., DoRA (2024).
    """
    import torch
    from peft import LoraConfig

    targets, layers = target_names(base, adapter.target_modules), layer_numbers(base, adapter)
    if layers is not None and adapter.target_modules == "all-linear":  # PEFT takes whole names from any layer
        targets = [name for name in targets if "." not in name or any(f".{layer}." in name for layer in layers)]
    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=targets,
        layers_to_transform=layers,
        use_rslora=adapter.rslora,
        use_dora=adapter.dora,
        trainable_token_indices=_token_rows(base, rows),
        task_type="CAUSAL_LM",
    )
    if adapter.target_modules == "all-linear":
        _aim_at_experts(config, base, adapter)
    # Only the card that it is on: to read the random state of another would reserve memory there.
    with torch.random.fork_rng(devices=[base.device] if base.device.type == "cuda" else []):
        torch.manual_seed(seed)
        adapted = _wrap(base, config)
    for parameter in adapted.parameters():
        if parameter.requires_grad:  # PEFT keeps rows in the base's type, where a small step vanishes
            parameter.data = parameter.data.float()
    return adapted


def _aim_at_experts(config: LoraConfig, base: PreTrainedModel, adapter: AdapterSpec) -> None:
    """Let `all-linear` mean what PEFT means for a mixture of experts: also its router and its stacked experts.

    Of architectures that PEFT does not know as mixtures it adapts the linear layers alone, and so do we.

    Raises:
        ConfigError: TG0111, as `check_expert_adapter`.
    """
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    linear, config.target_modules = config.target_modules, "all-linear"
    convert_peft_config_for_transformers(config, base, None)
    if not config.target_parameters:
        config.target_modules = linear
        return
    check_expert_adapter(adapter)
    if config.layers_to_transform is not None:  # which PEFT applies to modules only
        layers = {f".{number}." for number in config.layers_to_transform}
        config.target_parameters = {
            name
            for name, _ in base.named_parameters()
            if any(name.endswith(f".{each}") for each in config.target_parameters)
            and any(layer in name for layer in layers)
        }


def check_expert_adapter(adapter: AdapterSpec) -> None:
    """Check that PEFT can put this adapter on experts that are stacked in one parameter.

    Raises:
        ConfigError: TG0111, it cannot.
    """
    for name in ("dora", "dropout"):
        if getattr(adapter, name):
            raise ConfigError(
                f"all-linear adapts this model's experts, which are stacked in one parameter, and there PEFT has no "
                f"{name}", code="TG0111", where=f"train.adapter.{name}",
                hint=f"remove adapter.{name}, or name modules outside of the experts in adapter.target_modules",
            )  # fmt: skip


def left_out(model: nn.Module) -> list[str]:
    """Short names of linear layers and stacked experts that an adapter does not touch in any layer, sorted.

    Args:
        model: With its adapter; the output head does not count.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from torch import nn

    found: dict[str, bool] = {}
    head = model.get_output_embeddings()  # type: ignore[operator]
    for name, module in model.named_modules():
        if isinstance(module, BaseTunerLayer):
            wrapped = getattr(module, "parameter_name", None)  # of stacked experts
            own = re.sub(r"(\.base_layer)+$", "", name).rpartition(".")[2]
            found[own if wrapped in (None, "weight") else f"{own}.{wrapped}"] = True
            continue
        if ".lora_" in name or module is head:
            continue
        plain = re.sub(r"(\.base_layer)+$", "", name).rpartition(".")[2]
        if isinstance(module, nn.Linear):
            found.setdefault(plain, False)
        for parameter, values in module.named_parameters(recurse=False):
            if is_stacked(values):
                found.setdefault(f"{plain}.{parameter}", False)
    return sorted(name for name, adapted in found.items() if not adapted)


@lru_cache(maxsize=32)
def adapts_experts(config: str) -> bool:
    """Whether `all-linear` adapts stacked experts of the model of a config.json.

    Raises:
        ConfigError: as `build_skeleton`.
    """
    from peft import LoraConfig
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    settings = LoraConfig(target_modules="all-linear")
    convert_peft_config_for_transformers(settings, build_skeleton(orjson.loads(config)), None)
    return bool(settings.target_parameters)


@lru_cache(maxsize=128)
def count_trained(config: str, adapter: AdapterSpec) -> int:
    """Weights that this adapter trains on the model of a config.json, counted on its skeleton.

    Raises:
        ConfigError: as `attach_adapter` and `build_skeleton`.
    """
    adapted = attach_adapter(build_skeleton(orjson.loads(config)), adapter, seed=0)
    return sum(each.numel() for each in adapted.parameters() if each.requires_grad)


def _token_rows(base: PreTrainedModel, rows: Sequence[int]) -> dict[str, list[int]] | None:
    """PEFT's setting that trains single rows of the embeddings; tied ones follow by themselves."""
    if not rows:
        return None
    tied = base.get_input_embeddings().weight is base.get_output_embeddings().weight
    modules = [base.get_input_embeddings(), *([] if tied else [base.get_output_embeddings()])]
    return {name: list(rows) for name, module in base.named_modules() if any(module is each for each in modules)}


def trainable_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The trainable tensors by the names under which they are saved, in a stable order; shared with the model.

    A weight that two modules share appears once.
    """
    return {
        _saved_name(name): parameter.detach()
        for name, parameter in sorted(model.named_parameters())
        if parameter.requires_grad
    }


def save_trained(model: nn.Module, spec: TrainSpec, *, base: ModelRef, out: Path) -> None:
    """Write the adapter in PEFT's format, or for `full` the whole model with the tokenizer's files.

    An adapter on a base with an added chat template gets that template, its tokenizer and its tokens' first rows.

    Equal weights give equal bytes. Only safetensors are written.

    Raises:
        TrainingError: a weight is not finite; nothing is written.
    """
    from safetensors.torch import save_file

    tensors = trainable_tensors(model)
    broken = [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    if broken:
        raise TrainingError(
            f"{len(broken)} of {len(tensors)} trained tensors contain NaN or infinity, the first is {broken[0]}",
            code="TG0401",
            hint="lower train.learning_rate",
        )
    if spec.method == "full":
        for path in sorted(base.root.iterdir()):
            if path.is_file() and path.suffix in (".json", ".jinja", ".txt", ".model") and "index" not in path.name:
                (out / path.name).write_bytes(path.read_bytes())
        model.save_pretrained(out)  # type: ignore[operator]
        for name in ("MANIFEST.json", "artifact.json"):  # the base's; the store writes its own
            (out / name).unlink(missing_ok=True)
        return
    for name in CHAT_FILES if (base.root / RECORD).is_file() else ():
        if (base.root / name).is_file():
            (out / name).write_bytes((base.root / name).read_bytes())
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, out / WEIGHTS, {"format": "pt"})
    settings = model.peft_config["default"].to_dict()  # type: ignore[union-attr,index]
    settings |= {"base_model_name_or_path": base.uri, "inference_mode": True}
    write_json(out / CONFIG, {key: _plain(value) for key, value in settings.items()})


def load_trained(
    model: ModelRef,
    trained: TrainedRef | None,
    *,
    dtype: Literal["auto", "float32", "bfloat16"],
    threads: int | None = None,
) -> nn.Module:
    """Load the model for answering, in eval mode: the base alone, or with the trained weights.

    A qlora adapter is loaded on the 4-bit base that it was trained on: on any other base it is a different model.

    Args:
        model: The base.
        trained: None for the base alone.
        dtype: Number type of weights and arithmetic.
        threads: CPU threads of this process from now on; None leaves them unchanged.

    Raises:
        StorageError: files are missing or damaged; tensors are missing, unknown, of another shape or not finite.
        TrainingError: the adapter was trained on another base.
    """
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    number = resolve_dtype(dtype)
    if trained is None:
        base: nn.Module = load_base(model, dtype=number)
        return base
    if trained.base_digest != model.digest:
        raise TrainingError(
            f"the adapter was trained on base {trained.base_digest[:12]}, not on base {model.digest[:12]}",
            code="TG0403",
            where=str(trained.root),
        )
    if trained.method == "full":
        whole: nn.Module = load_base(model.model_copy(update={"root": trained.root}), dtype=number)
        return whole
    base = _open_base(model, number, quantization_of(trained.root) if trained.method == "qlora" else None)
    return _for_answers(put_adapter_on(base, trained.root))


def _open_base(
    model: ModelRef, dtype: torch.dtype, quantization: QuantizationSpec | None, device: torch.device | None = None
) -> PreTrainedModel:
    from torch import nn

    base = load_base(model, dtype=dtype, quantization=quantization, device=device)
    if quantization is not None:
        from bitsandbytes.nn import Linear4bit

        head = base.get_output_embeddings()
        left = [
            name
            for name, module in base.named_modules()
            if isinstance(module, nn.Linear) and not isinstance(module, Linear4bit) and module is not head
        ]
        left += [name for name, parameter in base.named_parameters() if is_stacked(parameter)]
        if left:
            raise TrainingError(
                f"method qlora needs a 4-bit base, but {len(left)} linear layers or stacked experts stayed in full "
                f"precision, the first is {left[0]}",
                code="TG0403",
                hint="use method: lora, or an architecture that bitsandbytes can quantise",
            )
    return base.requires_grad_(False)


def _wrap(base: PreTrainedModel, config: LoraConfig) -> nn.Module:
    from peft import get_peft_model

    with warnings.catch_warnings():
        # PEFT 0.21 uses a name of transformers 5.24 that version 6 removes.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        # It looks for these names among modules; those of experts are parameters, which get their rank all the same.
        warnings.filterwarnings("ignore", message="The following (rank|alpha)_pattern keys did not match any targeted")
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False")  # it corrects that itself
        try:  # of a skeleton only shapes: adapters of large mixtures take as much as a model
            adapted: nn.Module = get_peft_model(base, config, low_cpu_mem_usage=base.device.type == "meta")
        except ValueError as error:
            raise ConfigError(
                f"PEFT cannot put an adapter on this {base.config.model_type}: {' '.join(str(error).split())[:300]}",
                code="TG0181", where="train.adapter.target_modules", hint="name other linear layers",
            ) from error  # fmt: skip
    return adapted


def put_adapter_on(base: PreTrainedModel, root: Path) -> nn.Module:
    """Load the adapter's files onto the base; PEFT alone would only warn about wrong keys and answer like the base.

    Raises:
        StorageError: files are missing or damaged; tensors are missing, unknown, of another shape or not finite.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        config = _config_of(orjson.loads((root / CONFIG).read_bytes()))
        tensors = load_file(root / WEIGHTS)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise StorageError(
            f"the adapter does not load: {type(error).__name__}",
            code="TG0510",
            where=str(root),
            hint="remove the damaged directory; the next run recreates it",
        ) from error
    adapted = _wrap(base, config)
    copy_strictly(tensors, trainable_tensors(adapted), where=root / WEIGHTS)
    ready: nn.Module = adapted.requires_grad_(False)
    return ready


def check_adapter(base_config: Mapping[str, Any], settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Check that an adapter's tensors are those that `put_adapter_on` will need on a base, on the base's skeleton.

    Args:
        base_config: Fields of the base model's config.json.
        settings: Fields of adapter_config.json, with all that `LoraConfig` has.
        tensors: Of its file, by name.

    Raises:
        ConfigError: TG0181, the base lacks a module; or as `build_skeleton`.
        StorageError: TG0535, as `copy_strictly`.
    """
    base = build_skeleton(base_config)
    modules = {name for name, _ in base.named_modules()}
    names = (name.removeprefix("base_model.model.") for name in tensors)
    adapted = {re.split(r"(?:\.base_layer)*\.(?:lora_|trainable_tokens_)", name)[0] for name in names}
    missing = sorted(adapted - modules)
    if missing:
        raise ConfigError(
            f"the adapter has weights for {len(missing)} modules that the base model lacks, e.g. {missing[0]}",
            code="TG0181", where=WEIGHTS,
            hint="declare the base model that it was trained on as train.base_model",
        )  # fmt: skip
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*target_parameters")  # of modules that a part of them lacks
        check_tensors(tensors, trainable_tensors(_wrap(base, _config_of(settings))), where=Path(WEIGHTS))


def _config_of(settings: Mapping[str, Any]) -> LoraConfig:
    """The adapter as PEFT describes it, from its adapter_config.json."""
    from peft import LoraConfig

    more = {key: settings[key] for key in _DECIDE_PARTS if settings.get(key)}
    return LoraConfig(**{key: settings[key] for key in _DECIDE}, **more)


def _for_answers(model: nn.Module) -> nn.Module:
    """Set eval mode, except for 4-bit layers with DoRA."""
    # In eval mode on a CPU, bitsandbytes repacks 4-bit layers; PEFT computes row norms in each forward and would read
    # the packed bytes as if they were not repacked.
    model.eval()
    if any(getattr(module, "lora_magnitude_vector", None) for module in model.modules()):
        for module in model.modules():
            if type(module).__name__ == "Linear4bit":
                module.training = True
    return model


def copy_strictly(source: Mapping[str, Tensor], target: Mapping[str, Tensor], *, where: Path) -> None:
    """Overwrite every target tensor with the source tensor of the same name.

    Raises:
        StorageError: as `check_tensors`; no target is changed.
    """
    check_tensors(source, target, where=where)
    for name, tensor in source.items():
        target[name].copy_(tensor)


def check_tensors(source: Mapping[str, Tensor], target: Mapping[str, Tensor], *, where: Path) -> None:
    """Check that one can be copied onto the other.

    Raises:
        StorageError: TG0535, names or shapes differ, or a source tensor is not finite.
    """
    for problem, names in (("lacks", target.keys() - source.keys()), ("has unknown", source.keys() - target.keys())):
        if names:
            raise StorageError(
                f"the file {problem} {len(names)} tensors, e.g. {min(names)}", code="TG0535", where=str(where)
            )
    for name, tensor in source.items():
        if tensor.shape != target[name].shape:
            raise StorageError(
                f"{name} has shape {tuple(tensor.shape)}, the model needs {tuple(target[name].shape)}",
                code="TG0535",
                where=str(where),
            )
        if not bool(tensor.isfinite().all()):
            raise StorageError(f"{name} contains NaN or infinity", code="TG0535", where=str(where))


def quantization_of(root: Path) -> QuantizationSpec:
    """The 4-bit settings that an adapter was trained with; raises StorageError TG0510."""
    try:
        return QuantizationSpec.model_validate(orjson.loads((root / SETTINGS).read_bytes())["quantization"])
    except (OSError, ValueError, KeyError) as error:
        raise StorageError(
            f"no readable 4-bit settings: {type(error).__name__}", code="TG0510", where=str(root / SETTINGS)
        ) from error


def _saved_name(name: str) -> str:
    """The name in PEFT's files: without the adapter's own name, and with DoRA's magnitudes not as a module."""
    return (
        re.sub(r"\.(lora_[AB])\.default\.", r".\1.", name)
        .replace(".lora_magnitude_vector.default.weight", ".lora_magnitude_vector")
        .replace(".trainable_tokens_delta.default", ".trainable_tokens_delta")
    )


def _plain(value: Any) -> Any:
    """Replace PEFT's sets, whose order changes between processes, and enums with plain JSON values."""
    if isinstance(value, set | frozenset):
        return sorted(value)
    return getattr(value, "value", value)


def target_names(base: PreTrainedModel, wanted: Literal["all-linear"] | tuple[str, ...]) -> list[str]:
    """The sorted names of linear layers for PEFT; `all-linear` means every one except the output head.

    PEFT itself only fails when it finds none of the names, so it would ignore one misspelt name among several.

    Raises:
        ConfigError: no linear layer has one of the names.
    """
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    head, linear = base.get_output_embeddings(), (nn.Linear, Conv1D)
    found = {name for name, module in base.named_modules() if isinstance(module, linear) and module is not head}
    if wanted == "all-linear":
        if base.config.model_type in _MAMBA:
            found = {name for name in found if not name.endswith(".out_proj")}
        # The number of a layer in a list is also that of a decoder layer, so its whole name is needed.
        return sorted({name if (last := name.rpartition(".")[2]).isdigit() else last for name in found})
    check_targets(found, wanted)
    return sorted(set(wanted))


def check_targets(found: Collection[str], wanted: Sequence[str]) -> None:
    """Check that linear layers of these full names include all that are wanted.

    Raises:
        ConfigError: TG0181.
    """
    short = sorted({name.rpartition(".")[2] for name in found})
    for name in wanted:
        if not any(full == name or full.endswith(f".{name}") for full in found):
            close = difflib.get_close_matches(name, short, n=1)
            raise ConfigError(
                f"the model has no linear layer {name!r}; it has {', '.join(short)}",
                code="TG0181",
                where="train.adapter.target_modules",
                hint=f"did you mean {close[0]!r}?" if close else "use all-linear",
            )


def layer_numbers(base: PreTrainedModel, adapter: AdapterSpec) -> list[int] | None:
    """The transformer layers to adapt, from 0; None for all.

    Raises:
        ConfigError: TG0181, as `AdapterSpec.layers_within`.
    """
    n_layers = int(base.config.num_hidden_layers)
    chosen = adapter.layers_within(n_layers)
    return None if len(chosen) == n_layers else list(chosen)
