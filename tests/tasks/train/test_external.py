"""Candidates that other programs trained: what is taken as it is, and what is refused before a question is asked."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from schemas.artifacts import Artifact, ModelRef, TrainedRef
from schemas.errors import TunegateError
from tasks.model.adapter import load_trained
from tasks.model.base_model import load_base
from tasks.storage.sealed_folder import seal
from tasks.train.external import fingerprint_candidate, take_external
from tests.support.shared import made_once

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def peft_model(base: ModelRef, **settings: Any) -> nn.Module:
    """PEFT's own model on the base, with factors B that change its answers."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(5)
    config = LoraConfig(**{"r": 4, "target_modules": ["q_proj", "up_proj"], "init_lora_weights": False, **settings})
    model = load_base(base, dtype=torch.float32)
    model.name_or_path = model.config._name_or_path = str(base.root)
    adapted: nn.Module = get_peft_model(model, config)
    return adapted


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, tiny_model: ModelRef) -> Path:
    """`adapter` and `merged`, as PEFT and transformers write them."""

    def make(folder: Path) -> None:
        adapted = peft_model(tiny_model)
        adapted.save_pretrained(folder / "adapter")  # type: ignore[operator]
        ids = torch.arange(3, 40)[None]
        with torch.inference_mode():
            torch.save(adapted(input_ids=ids).logits, folder / "logits.pt")
        settings = json.loads((folder / "adapter" / CONFIG).read_text())
        # PEFT names a base of a folder as this process found it; other machines have other folders.
        (folder / "adapter" / CONFIG).write_text(json.dumps(settings | {"base_model_name_or_path": "hub/tiny_model"}))
        adapted.merge_and_unload().save_pretrained(folder / "merged")  # type: ignore[operator]

    return made_once(tmp_path_factory, "external", make)


Take = Callable[..., TrainedRef]


@pytest.fixture
def take(tmp_path: Path, tiny_model: ModelRef) -> Take:
    def run(folder: Path | str, *, base: ModelRef = tiny_model, form: str = "instruction") -> TrainedRef:
        out = tmp_path / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        return take_external(
            out, model=base, address=str(folder), form=form, allow_download=False, root=tmp_path,  # type: ignore[arg-type]
            cache=tmp_path / "cache",
        )  # fmt: skip

    return run


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        return Path(shutil.copytree(written / name, tmp_path / name))

    return make


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(("name", "method"), [("adapter", "lora"), ("merged", "full")])
def test_what_peft_wrote_answers_as_it_did_there(
    name: str, method: str, written: Path, take: Take, tiny_model: ModelRef
) -> None:
    trained = take(written / name)
    assert (trained.method, trained.external, trained.n_steps) == (method, str(written / name), 0)
    assert trained.train_loss is None
    model = load_trained(tiny_model, trained, dtype="float32")
    wanted = torch.load(written / "logits.pt", weights_only=True)
    with torch.inference_mode():
        assert torch.allclose(model(input_ids=torch.arange(3, 40)[None]).logits, wanted, atol=1e-4)


def test_a_base_is_compared_by_digest_where_it_is_here_and_else_by_name(
    copy: Callable[[str], Path], take: Take, tiny_model: ModelRef, tmp_path: Path
) -> None:
    adapter = copy("adapter")
    base = tiny_model.model_copy(update={"uri": "file:bases/tiny_model"})
    assert any("by name, and not by digest" in each for each in take(adapter, base=base).warnings)
    edit(adapter / CONFIG, base_model_name_or_path=str(tiny_model.root))
    assert not any("by name" in each for each in take(adapter, base=base).warnings)
    other = Path(shutil.copytree(tiny_model.root, tmp_path / "tiny_model"))
    tensors = load_file(other / "model.safetensors")
    save_file({name: each * 1.01 for name, each in tensors.items()}, other / "model.safetensors", {"format": "pt"})
    edit(adapter / CONFIG, base_model_name_or_path=str(other))
    with pytest.raises(TunegateError, match="whose weights differ") as refused:
        take(adapter, base=base)
    assert refused.value.code == "TG0403"
    commit = tiny_model.model_copy(update={"uri": f"hf://org/tiny@{'a' * 40}"})
    edit(adapter / CONFIG, base_model_name_or_path="org/tiny", revision="a" * 40)
    assert not any("by name" in each for each in take(adapter, base=commit).warnings)
    edit(adapter / CONFIG, revision="b" * 40)
    with pytest.raises(TunegateError, match="commit aaaaaaaaaaaa"):
        take(adapter, base=commit)


def reweigh(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS, {"format": "pt"})

    return spoil


def as_pickle(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "adapter_model.bin")
    (folder / WEIGHTS).unlink()


def first(tensors: dict[str, Any]) -> str:
    return min(tensors)


SPOILT: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "pickles": (as_pickle, "TG0822", "the weights are pickles"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "TG0171", f"no {WEIGHTS}"),
    "no settings": (lambda folder: (folder / CONFIG).unlink(), "TG0171", f"no {CONFIG}"),
    "damaged": (lambda folder: (folder / WEIGHTS).write_bytes(b"x" * 400), "TG0542", "damaged weights"),
    "other base": (
        lambda folder: edit(folder / CONFIG, base_model_name_or_path="meta-llama/Llama-3.2-1B"), "TG0403",
        "trained on meta-llama/Llama-3.2-1B, and train.base_model is",
    ),
    "unnamed base": (lambda folder: edit(folder / CONFIG, base_model_name_or_path=None), "TG0403", "not say which"),
    "other rank": (lambda folder: edit(folder / CONFIG, r=8), "TG0535", r"shape \(4, 64\), the model needs \(8, 64\)"),
    "unknown module": (
        reweigh(lambda t: t.update({"base_model.model.model.layers.0.mlp.c_fc.lora_A.weight": torch.zeros(4, 64)})),
        "TG0181", "modules that the base model lacks, e.g. model.layers.0.mlp.c_fc",
    ),
    "missing tensor": (reweigh(lambda t: t.pop(first(t))), "TG0535", "lacks 1 tensors"),
    "not finite": (reweigh(lambda t: t[first(t)].fill_(float("nan"))), "TG0535", "NaN or infinity"),
    "saved embeddings": (
        reweigh(lambda t: t.update({"base_model.model.model.embed_tokens.weight": torch.zeros(400, 64)})),
        "TG0181", "modules",
    ),
    "another kind": (lambda folder: edit(folder / CONFIG, peft_type="IA3"), "TG0173", "only LORA"),
    "PiSSA": (lambda folder: edit(folder / CONFIG, init_lora_weights="pissa"), "TG0173", "changes the weights"),
    "rank in words": (lambda folder: edit(folder / CONFIG, lora_alpha="8"), "TG0173", "has lora_alpha '8', which PEFT"),
    "rank of no module": (lambda folder: edit(folder / CONFIG, rank_pattern=[1]), "TG0173", "has rank_pattern"),
    "flag in words": (lambda folder: edit(folder / CONFIG, use_dora="no"), "TG0173", "has use_dora 'no'"),
    "endless name": (
        lambda folder: edit(folder / CONFIG, base_model_name_or_path="x" * 5000), "TG0403", "trained on x{200}, and",
    ),
    "saved modules": (lambda folder: edit(folder / CONFIG, modules_to_save=["lm_head"]), "TG0173", "modules_to_save"),
    "both": (
        lambda folder: (folder / "model.safetensors").write_bytes((folder / WEIGHTS).read_bytes()), "TG0171", "both",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", SPOILT)
def test_an_adapter_that_does_not_fit_is_refused_with_its_cause(
    fault: str, copy: Callable[[str], Path], take: Take, tiny_model: ModelRef
) -> None:
    adapter = copy("adapter")
    spoil, code, message = SPOILT[fault]
    spoil(adapter)
    with pytest.raises(TunegateError, match=message) as refused:
        take(adapter)
    assert refused.value.code == code
    assert refused.value.hint


def test_a_merged_model_of_another_shape_is_refused(copy: Callable[[str], Path], take: Take) -> None:
    merged = copy("merged")
    tensors = load_file(merged / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    save_file(tensors | {name: tensors[name][:100].clone()}, merged / "model.safetensors", {"format": "pt"})
    with pytest.raises(TunegateError, match=r"up_proj.weight has shape \(100, 64\), and the base model's \(128, 64\)"):
        take(merged)
    save_file({key: value for key, value in tensors.items() if key != name}, merged / "model.safetensors")
    with pytest.raises(TunegateError, match=f"lacks 1 tensors, e.g. {name}"):
        take(merged)
    edit(merged / "config.json", quantization_config={"quant_method": "gptq"})
    with pytest.raises(TunegateError, match="the model is quantised"):
        take(merged)


def test_template_and_tokens_must_write_what_the_pipeline_writes(
    copy: Callable[[str], Path], take: Take, tiny_model: ModelRef
) -> None:
    adapter = copy("adapter")
    assert any("were not compared" in each for each in take(adapter).warnings)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tiny_model.root / name, adapter)
    template = adapter / "chat_template.jinja"
    own = template.read_text()
    assert not any("compared" in each for each in take(adapter).warnings)
    # TRL marks what carries loss; this writes nothing.
    template.write_text(own.replace("{{ '<|im_start|>'", "{% generation %}{{ '<|im_start|>'", 1).replace(
        "{% endfor %}", "{% endgeneration %}{% endfor %}", 1
    ))  # fmt: skip
    assert not any("compared" in each for each in take(adapter).warnings)
    template.write_text(own.replace("<|im_start|>", "<|im_end|>"))
    with pytest.raises(TunegateError, match="the chat templates of model and pipeline write") as refused:
        take(adapter)
    assert refused.value.code == "TG0403"
    template.write_text(own)
    tokenizer = json.loads((adapter / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    (one, other), ids = list(vocabulary)[300:302], list(vocabulary.values())[300:302]
    vocabulary[one], vocabulary[other] = ids[1], ids[0]
    (adapter / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(TunegateError, match=r"2 tokens, e\.g\."):
        take(adapter)


def test_only_files_that_are_used_change_the_fingerprint(copy: Callable[[str], Path], tmp_path: Path) -> None:
    adapter = copy("adapter")
    before = fingerprint_candidate("adapter", root=tmp_path)
    (adapter / "training_args.bin").write_bytes(b"a pickle that is never read")
    assert fingerprint_candidate("adapter", root=tmp_path) == before
    edit(adapter / CONFIG, lora_alpha=3)
    assert fingerprint_candidate("adapter", root=tmp_path) != before


def test_a_hub_model_needs_permission_or_the_cache(
    written: Path, take: Take, tmp_path: Path, tiny_model: ModelRef
) -> None:
    address = f"hf://org/support@{'c' * 40}"
    with pytest.raises(TunegateError, match="downloads are not allowed") as refused:
        take(address)
    assert (refused.value.code, refused.value.where) == ("TG0171", "train.allow_download")
    place = tmp_path / "cache" / "models" / f"hf-candidate-org--support-{'c' * 40}"
    shutil.copytree(written / "adapter", place)
    seal(place)
    assert take(address).external == address


def test_a_registered_model_may_nest_its_adapter(written: Path, tmp_path: Path, tiny_model: ModelRef) -> None:
    files, out = tmp_path / "files", tmp_path / "out"
    shutil.copytree(written / "adapter", files / "model" / "peft")
    out.mkdir()
    trained = take_external(
        out, model=tiny_model, address="models:/support@best", form="instruction", allow_download=False, root=tmp_path,
        cache=tmp_path, registered=Artifact(root=files),
    )  # fmt: skip
    assert trained.external == "models:/support@best"
