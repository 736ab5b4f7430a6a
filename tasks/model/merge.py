"""Merge an adapter into its base, and prove that the merged model answers as the two did.

`W + (alpha / rank) * B @ A` is added in float32 and rounded once, at the end; in bfloat16 small updates would be lost
one by one. A 4-bit base is dequantised first and never quantised again. `write_merged` writes one complete directory,
reads it back and checks that it answers as base and adapter do on held-out texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import orjson

from schemas.artifacts import ModelRef, PromptSet, TrainedRef
from schemas.errors import TrainingError
from tasks.model.adapter import load_trained, put_adapter_on, quantization_of
from tasks.model.answer_engine import stops_of
from tasks.model.base_model import load_base, load_tokenizer, resolve_dtype
from tasks.model.chat_codec import ChatCodec, training_template
from tasks.model.generate import read_items
from tasks.progress import silent_report
from tasks.storage.files import write_json
from tasks.storage.sealed_folder import MANIFEST

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

Stored = Literal["float32", "bfloat16"]
"""Number type of a merged model's weights."""
_WIDE = 4
EFFECT_POSITIONS = 500
"""Positions that measure the adapter's effect. More can only make it larger, and the bounds on the difference laxer."""
Dtype = Literal["auto", "float32", "bfloat16"]
Texts = Sequence[Sequence[int]]


@dataclass(frozen=True)
class MergeLimits:
    """Limits on how much a merged model may differ."""

    max_error: float
    """Largest difference of a logit, as a share of the adapter's largest effect."""
    min_agreement: float
    """Share of positions with the same most likely token, 0-1."""


BOUNDS: dict[Stored, MergeLimits] = {
    "float32": MergeLimits(max_error=1e-3, min_agreement=0.999),
    "bfloat16": MergeLimits(max_error=0.5, min_agreement=0.97),
}
"""The first allows only a different order of additions. The second allows rounding all weights to 8 bits of precision,
as long as that moves the logits by less than half of the adapter's effect (measured: 0.18 of it, for an effect of 1.7;
docs/decisions/bases-and-memory.md). Losing the adapter gives 1."""


@dataclass(frozen=True)
class Parity:
    """Comparison of a merged model with its parts, over all positions of some texts."""

    max_logit_difference: float
    adapter_effect: float
    """Largest change that the adapter makes to a logit of the base, over the first texts."""
    argmax_agreement: float
    """Share of positions with the same most likely token, 0-1."""
    n_positions: int

    def is_within(self, bounds: MergeLimits) -> bool:
        """Whether it is within the bounds; NaN never is."""
        return (
            self.max_logit_difference <= bounds.max_error * self.adapter_effect
            and self.argmax_agreement >= bounds.min_agreement
        )


def merge_adapter(
    model: ModelRef,
    trained: TrainedRef,
    *,
    out: Path,
    stored: Stored = "bfloat16",
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
) -> ModelRef:
    """Write base and adapter as one Hugging Face directory, with the tokenizer's files.

    Args:
        model: The base that the adapter was trained on.
        trained: An adapter of method lora or qlora.
        out: An empty directory.
        stored: Number type of the written weights.
        dtype: Number type in which a qlora adapter's 4-bit base is loaded for training and answering: its weights are
            rounded to it before they are quantised.

    Returns:
        The merged model; its digest is empty until a store has committed it.

    Raises:
        TrainingError: TG0403, there is no adapter to merge, or it was trained on another base.
        StorageError: files are missing or damaged.
    """
    import torch

    if trained.method == "full":
        raise TrainingError("method full trains a whole model: there is no adapter to merge", code="TG0403")
    if trained.base_digest != model.digest:
        raise TrainingError(
            f"the adapter was trained on base {trained.base_digest[:12]}, not on base {model.digest[:12]}",
            code="TG0403",
            where=str(trained.root),
        )
    base = load_base(model, dtype=torch.float32)
    if trained.method == "qlora":
        _dequantise_into(base, load_base(model, dtype=resolve_dtype(dtype), quantization=quantization_of(trained.root)))
    merged = merge_in_float32(put_adapter_on(base, trained.root)).to(
        torch.float32 if stored == "float32" else torch.bfloat16
    )
    copy_tokenizer(model.root, out)
    merged.save_pretrained(out)  # type: ignore[operator]
    return model.model_copy(update={"root": out, "digest": "", "uri": f"file:{out.name}"})


def merge_in_float32(adapted: nn.Module) -> nn.Module:
    """The model with its adapter merged into its weights; do not use the argument afterwards.

    Raises:
        TrainingError: TG0403, a weight is not float32. In 4 bits an update of a few per cent vanishes when rounded to
            one of 16 values; in 16 bits a part of it does.
    """
    for name, parameter in adapted.named_parameters():
        if parameter.element_size() != _WIDE:
            held = "4-bit" if type(parameter).__name__ == "Params4bit" else str(parameter.dtype)
            raise TrainingError(
                f"an adapter can only be merged into float32 weights; {name} is {held}",
                code="TG0403",
                hint="merge_adapter dequantises a 4-bit base first",
            )
    plain: nn.Module = adapted.merge_and_unload(safe_merge=True)  # type: ignore[operator]
    return plain


def check_parity(
    model: ModelRef,
    trained: TrainedRef,
    merged: ModelRef,
    *,
    texts: Sequence[Sequence[int]],
    stored: Stored,
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    report: Callable[[str], None] = silent_report,
) -> Parity:
    """Compare the merged model with base and adapter on held-out texts; both compute in float32.

    Args:
        model: The base.
        trained: The adapter, or the fully trained model.
        merged: From `merge_adapter`, or the same model read back from another format.
        texts: Token ids, see `held_out_texts`.
        stored: As for the merge; selects the bounds.
        dtype: As for the merge.
        report: Called before each text, with what is done now.

    Raises:
        TrainingError: TG0403, the merged model differs by more than `BOUNDS`, or there is nothing to compare.
    """
    import torch

    whole = load_base(merged, dtype=torch.float32)
    parts = load_trained(model, trained, dtype=dtype if trained.method == "qlora" else "float32")
    base = load_base(model, dtype=torch.float32) if trained.method == "full" else None
    found = measure_parity(_computing_in_float32(parts), whole, texts, base=base, report=report)
    if not found.n_positions or not found.is_within(BOUNDS[stored]):
        raise TrainingError(
            f"the merged model does not answer as its parts: logits differ by up to {found.max_logit_difference:.3g}, "
            f"the adapter changes them by {found.adapter_effect:.3g}, and the most likely token agrees at "
            f"{found.argmax_agreement:.2%} of {found.n_positions} positions",
            code="TG0403",
            where=str(merged.root),
            hint="serve base and adapter separately, or write the weights in float32",
        )
    return found


def measure_parity(
    parts: nn.Module,
    whole: nn.Module,
    texts: Sequence[Sequence[int]],
    *,
    base: nn.Module | None = None,
    report: Callable[[str], None] = silent_report,
) -> Parity:
    """Measure the differences between `whole` and `parts`, and between `parts` and the base.

    Args:
        base: None for the base inside a PEFT model.
        report: Called before each text, with what is done now.
    """
    import torch

    difference, effect, same, count = 0.0, 0.0, 0, 0
    with torch.inference_mode():
        for number, text in enumerate(texts, start=1):
            report(f"compare it with base and adapter: text {number} of {len(texts)}")
            ids = torch.tensor([list(text)], device=next(whole.parameters()).device)
            adapted, merged = _logits(parts, ids), _logits(whole, ids)
            # Python's max() drops NaN, torch's keeps it.
            difference = float(torch.stack([torch.tensor(difference), (merged - adapted).abs().max().cpu()]).max())
            if count < EFFECT_POSITIONS:
                effect = max(effect, float((adapted - _without_adapter(parts, base, ids)).abs().max()))
            same += int((merged.argmax(-1) == adapted.argmax(-1)).sum())
            count += ids.shape[1]
    return Parity(difference, effect, same / count if count else 0.0, count)


def _without_adapter(parts: nn.Module, base: nn.Module | None, ids: Tensor) -> Tensor:
    if base is not None:
        return _logits(base, ids)
    with parts.disable_adapter():  # type: ignore[operator]
        return _logits(parts, ids)


def held_out_texts(
    prompts: PromptSet, model: ModelRef, *, n_items: int = 16, n_positions: int = 2000
) -> list[list[int]]:
    """Prompts with their reference answers as token ids: the first of the file, until one of the numbers is reached.

    Args:
        n_positions: Tokens of all texts. 2,000 tell an agreement of 0.999 from 0.998, and each is computed twice.
    """
    texts: list[list[int]] = []
    for item in read_items(prompts, ChatCodec.of(load_tokenizer(model), prompts.format))[:n_items]:
        if sum(map(len, texts)) >= n_positions:
            break
        texts.append([*item.prompt, *item.reference])
    return texts


def _logits(model: nn.Module, ids: Tensor) -> Tensor:
    logits: Tensor = model(input_ids=ids, use_cache=False).logits[0].float()
    return logits


def _dequantise_into(plain: PreTrainedModel, quantised: PreTrainedModel) -> None:
    """Copy the dequantised 4-bit layers and all other weights of the quantised model into `plain`."""
    import torch

    for name, module in _four_bit_layers(quantised):
        from bitsandbytes.functional import dequantize_4bit

        weight = module.weight
        weight.quant_state.dtype = torch.float32  # type: ignore[union-attr]
        plain.get_submodule(name).weight.data.copy_(dequantize_4bit(weight.data, weight.quant_state))  # type: ignore[union-attr]
    left = {name for name, _ in _four_bit_layers(quantised)}
    for name, parameter in quantised.named_parameters():
        if name.rpartition(".")[0] not in left:
            plain.get_parameter(name).data.copy_(parameter.data)


def _four_bit_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((name, module) for name, module in model.named_modules() if type(module).__name__ == "Linear4bit")


def _computing_in_float32(model: nn.Module) -> nn.Module:
    """Keep the weights, including 4-bit ones, but compute in float32."""
    import torch

    four_bit = dict(_four_bit_layers(model))
    for module in four_bit.values():
        module.compute_dtype = torch.float32  # type: ignore[assignment]
        module.weight.quant_state.dtype = torch.float32  # type: ignore[union-attr]
        module.training = True  # otherwise bitsandbytes repacks them for bfloat16
    for name, parameter in model.named_parameters():
        if name.rpartition(".")[0] not in four_bit:
            parameter.data = parameter.data.float()
    return model


def copy_tokenizer(source: Path, out: Path) -> None:
    """Copy the small files of a model's directory, without its weights."""
    for path in sorted(source.iterdir()):
        settings = path.suffix in (".json", ".jinja", ".txt", ".model")
        if path.is_file() and settings and "index" not in path.name and path.name not in (MANIFEST, "artifact.json"):
            (out / path.name).write_bytes(path.read_bytes())


def write_merged(
    model: ModelRef,
    trained: TrainedRef,
    *,
    texts: Texts,
    stored: Stored,
    dtype: Dtype,
    out: Path,
    report: Callable[[str], None] = silent_report,
) -> Parity:
    """Write base and adapter, or the fully trained model, as one directory with training's stop tokens.

    Args:
        model: The base.
        trained: The adapter or the fully trained model.
        texts: Held-out texts as token ids, for the comparison.
        stored: Number type of the written weights.
        dtype: Number type in which a qlora adapter's 4-bit base is loaded for answering.
        out: An empty directory.
        report: Called with what is done now, in words.

    Raises:
        TrainingError: TG0403, the written model does not answer as its parts.
        StorageError: files are missing or damaged.
    """
    report("merge the adapter and write the weights" if trained.method != "full" else "write the weights")
    whole = _whole(model, trained, stored=stored, dtype=dtype, out=out)
    _write_stop_tokens(whole, trained)
    report("read them back")
    return check_parity(model, trained, whole, texts=texts, stored=stored, dtype=dtype, report=report)


def _whole(model: ModelRef, trained: TrainedRef, *, stored: Stored, dtype: Dtype, out: Path) -> ModelRef:
    """Write the model as one directory, without comparing it."""
    import torch

    if trained.method != "full":
        return merge_adapter(model, trained, out=out, stored=stored, dtype=dtype)
    loaded = load_base(model.model_copy(update={"root": trained.root}), dtype=torch.float32)
    copy_tokenizer(model.root, out)
    loaded.to(torch.float32 if stored == "float32" else torch.bfloat16).save_pretrained(out)
    return model.model_copy(update={"root": out, "digest": "", "uri": f"file:{out.name}"})


def _write_stop_tokens(whole: ModelRef, trained: TrainedRef) -> None:
    """Write training's stop tokens and template, for programs that read only these files."""
    from transformers import GenerationConfig

    codec = ChatCodec.of(load_tokenizer(whole), trained.format)
    written = GenerationConfig.from_pretrained(whole.root)  # saved with the weights, which need not be loaded for it
    stops = sorted(stops_of(codec, written.eos_token_id))
    settings = whole.root / "generation_config.json"
    present = orjson.loads(settings.read_bytes()) if settings.is_file() else {}
    write_json(settings, {**present, "eos_token_id": stops[0] if len(stops) == 1 else stops, "do_sample": False})
    template = training_template(codec)
    if template is not None:
        (whole.root / "chat_template.jinja").write_text(template, encoding="utf-8")
