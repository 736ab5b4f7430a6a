"""Bases that are no plain decoders: experts, the text part of a model that sees images, and what is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from schemas.artifacts import DatasetRef, ModelRef
from schemas.errors import TrainingError
from schemas.evaluation import DecodingSpec
from schemas.training import AdapterSpec, PromptSpec, TrainSpec
from tasks.model.adapter import load_trained, open_for_training
from tasks.model.base_model import fetch_base_model, load_base
from tasks.model.decoding.fused_decoder import open_decoder
from tasks.model.merge import merge_adapter
from tasks.model.tunegate_loader import BASE_VARIABLE, LoadedModel
from tasks.release.bundle import bundle_candidate
from tasks.release.export_adapter import launch_script, write_peft
from tasks.release.export_format import Exported
from tasks.release.serve import load_bundle, read_serving
from tasks.storage.files import write_json
from tasks.storage.sealed_folder import seal, verify
from tasks.train.base_fit import base_faults, find_base
from tasks.train.batches import Examples
from tasks.train.forward import losses_of
from tasks.train.job import PROGRESS, ProgressLog, TrainJob
from tasks.train.model_shapes import ModelDims
from tasks.train.part import run_rank
from tests.support.trained import perturb, save, save_perturbed

MakeSpec = Callable[..., TrainSpec]
IDS = torch.arange(3, 23)[None]
SIZES = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 400, "max_position_embeddings": 512,
    "bos_token_id": 1, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8},
    "gpt_neox": {},
    "gpt2": {},
    "gemma3": {"text_config": {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}},
}


def write_base(kind: str, tokenizer: Path, root: Path) -> Path:
    """A random model of this architecture, with the tokenizer of the tiny model."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    shutil.copytree(tokenizer, root, ignore=shutil.ignore_patterns("*.safetensors", "config.json", "MANIFEST.json"))
    torch.manual_seed(5)
    settings = {**SIZES, **KINDS[kind]}
    if kind == "gemma3":
        vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        text = {**SIZES, "model_type": "gemma3_text", **KINDS[kind]["text_config"]}
        settings = {"text_config": text, "vision_config": {**vision, "image_size": 28, "patch_size": 14}}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings))
    model.save_pretrained(root)
    return root


@pytest.fixture(scope="module")
def bases(tiny_model: ModelRef, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Kind -> folder."""
    root = tmp_path_factory.mktemp("bases")
    return {kind: write_base(kind, tiny_model.root, root / kind) for kind in KINDS}


def fetch(folder: Path, out: Path) -> ModelRef:
    out.mkdir()
    model = fetch_base_model(out, uri=f"file:{folder}", allow_download=False, root=out, cache=out)
    return model.model_copy(update={"digest": seal(out)})


def faults_of(folder: Path, spec: TrainSpec) -> list[str]:
    base = find_base(f"file:{folder}", allow_download=False, root=folder, cache=folder)
    assert base is not None
    return [str(fault) for fault in base_faults(base, spec, max_new_tokens=8, chat=None)]


@pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys")  # of PEFT's own loader
@pytest.mark.parametrize(("kind", "part", "n_tensors"), [("mixtral", ".experts.", 8), ("gpt2", ".c_attn.", 4)])
def test_adapters_on_experts_and_transposed_layers_train_and_answer_as_peft_does(
    bases: dict[str, Path],
    dataset: DatasetRef,
    make_spec: MakeSpec,
    tmp_path: Path,
    kind: str,
    part: str,
    n_tensors: int,
) -> None:
    from peft import PeftModel

    model = fetch(bases[kind], tmp_path / "base")
    spec = make_spec()
    assert faults_of(bases[kind], spec.model_copy(update={"max_length": 256})) == []
    opened = perturb(open_for_training(model, spec))
    adapted = [each for name, each in opened.named_parameters() if part in name and each.requires_grad]
    assert len(adapted) == n_tensors
    losses = losses_of(opened, dtype=torch.float32, recompute=False)
    examples = Examples(dataset.root / "train")
    with losses.sharing([]):
        losses(examples.batch([0, 1, 2])).mean().backward()  # type: ignore[no-untyped-call]
    assert all(each.grad is not None and float(each.grad.abs().max()) > 0 for each in adapted)
    trained = save(opened, spec, model, tmp_path)
    merged = merge_adapter(model, trained, out=_made(tmp_path / "merged"), stored="float32", dtype="float32")
    base = load_base(model, dtype=torch.float32)
    bare = base(input_ids=IDS).logits.detach()
    with torch.no_grad():
        wanted = opened.eval()(input_ids=IDS).logits
        ours = load_trained(model, trained, dtype="float32")(input_ids=IDS).logits
        whole = load_base(merged, dtype=torch.float32)(input_ids=IDS).logits
        peft = PeftModel.from_pretrained(base, trained.root)(input_ids=IDS).logits
    for got in (ours, whole, peft):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    reading = open_decoder(load_trained(model, trained, dtype="float32"), []).read([IDS[0].tolist()], room=4)
    torch.testing.assert_close(reading.next_logits()[0], wanted[0, -1], rtol=1e-4, atol=1e-5)
    assert float((wanted - bare).abs().max()) > 0.01


def test_a_training_says_what_all_linear_leaves_out(
    bases: dict[str, Path], dataset: DatasetRef, make_spec: MakeSpec, tmp_path: Path
) -> None:
    model, scratch = fetch(bases["gpt_oss"], tmp_path / "base"), _made(tmp_path / "scratch")
    job = TrainJob(dataset=dataset, model=model, spec=make_spec(max_steps=2), scratch=scratch, threads=1)
    assert run_rank(job, stop=lambda: False, log=ProgressLog(scratch / PROGRESS)) == 0
    events = [orjson.loads(line) for line in (scratch / PROGRESS).read_text().splitlines()]
    assert [each["message"] for each in events if each.get("event") == "warning"] == [
        "all-linear leaves out experts.down_proj, experts.gate_up_proj, as PEFT does"
    ]


def test_stacked_experts_are_not_left_in_full_precision_silently(
    bases: dict[str, Path], make_spec: MakeSpec, tmp_path: Path
) -> None:
    spec = make_spec(method="qlora", max_length=256)
    (fault,) = faults_of(bases["mixtral"], spec)
    assert "method qlora cannot load a mixtral in 4 bits" in fault
    assert "experts stacked in one parameter" in fault
    with pytest.raises(TrainingError, match=r"stayed in full precision, the first is model\.layers\.0\.mlp\.experts"):
        open_for_training(fetch(bases["mixtral"], tmp_path / "base"), spec)


@pytest.mark.parametrize(
    ("kind", "settings", "cause"),
    [
        ("mixtral", {"adapter": AdapterSpec(dropout=0.1)}, "PEFT has no dropout"),
        ("mixtral", {"adapter": AdapterSpec(dora=True)}, "PEFT has no dora"),
        ("mixtral", {"sharding": "full", "processes": 2}, "adapters on the stacked experts of a mixtral"),
        ("gpt_neox", {"sharding": "full", "processes": 2}, "a gpt_neox, whose decoder layers are not in model.layers"),
        ("gpt_neox", {"adapter": AdapterSpec(target_modules=("q_proj",))}, "no linear layer 'q_proj'"),
    ],
)
def test_what_a_base_cannot_do_is_known_from_its_files(
    bases: dict[str, Path], make_spec: MakeSpec, kind: str, settings: dict[str, Any], cause: str
) -> None:
    faults = faults_of(bases[kind], make_spec(max_length=256, **settings))
    assert faults
    assert all(cause in fault for fault in faults), faults


@pytest.mark.parametrize(
    ("config", "cause"),
    [
        ({"model_type": "mamba"}, "does not say how many tokens of the context it has (max_position_embeddings)"),
        ({"model_type": "bert"}, "it reads text in both directions"),
        ({"model_type": "t5"}, "it reads with an encoder and writes with a decoder"),
        ({"model_type": "clip"}, "transformers has no class of it that writes text token by token"),
        ({"model_type": "unheard_of"}, "the installed transformers does not know it"),
        ({"model_type": "gemma3"}, "its config.json has no num_hidden_layers"),
        ({"model_type": "mixtral", "num_local_experts": 2.5}, "Field 'num_local_experts' expected int, got float"),
        ({"model_type": "llama", "vocab_size": None, "max_position_embeddings": 9}, "expected int, got NoneType"),
    ],
)
def test_a_base_that_is_refused_is_refused_with_its_cause_from_config_json(
    bases: dict[str, Path], make_spec: MakeSpec, tmp_path: Path, config: dict[str, Any], cause: str
) -> None:
    folder = tmp_path / "refused"
    shutil.copytree(bases["gpt_neox"], folder)
    write_json(folder / "config.json", config)
    (fault,) = faults_of(folder, make_spec(max_length=256))
    assert cause in fault


def test_the_text_part_of_a_model_that_sees_images_trains(
    bases: dict[str, Path], dataset: DatasetRef, make_spec: MakeSpec, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    folder = bases["gemma3"]
    names = set(load_file(folder / "model.safetensors"))
    assert any("vision_tower" in name for name in names)
    assert faults_of(folder, make_spec(max_length=256)) == []
    model = fetch(folder, tmp_path / "base")
    assert (model.vocab_size, model.context_length) == (400, 512)
    kept = load_base(model, dtype=torch.float32)
    assert type(kept).__name__ == "Gemma3ForCausalLM"
    assert model.n_parameters == sum(each.numel() for each in kept.parameters())
    for place in (folder, model.root):
        dims = ModelDims.read(place / "config.json")
        assert dims is not None
        assert dims.n_parameters == model.n_parameters
    whole: nn.Module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        torch.testing.assert_close(kept(input_ids=IDS).logits, whole(input_ids=IDS).logits)
    opened = perturb(open_for_training(model, make_spec()))
    losses = losses_of(opened, dtype=torch.float32, recompute=False)(Examples(dataset.root / "train").batch([0, 1]))
    losses.mean().backward()  # type: ignore[no-untyped-call]
    assert all(each.grad is not None for each in opened.parameters() if each.requires_grad)


def test_an_adapter_on_a_text_part_is_served_with_it_and_not_with_the_whole_at_its_address(
    bases: dict[str, Path], make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import AutoPeftModelForCausalLM

    monkeypatch.delenv(BASE_VARIABLE, raising=False)
    commit = "a" * 40
    cached = tmp_path / "cache/models" / f"hf-org--sees-{commit}"
    shutil.copytree(bases["gemma3"], cached)
    digest = seal(cached)
    model = fetch_base_model(
        _made(tmp_path / "base"), uri=f"hf://org/sees@{commit}", allow_download=False, root=tmp_path,
        cache=tmp_path / "cache",
    )  # fmt: skip
    assert verify(cached) == digest, "the links into the cache were replaced"
    model = model.model_copy(update={"digest": seal(model.root)})
    trained = save_perturbed(model, make_spec(), tmp_path / "trained")
    decoding = DecodingSpec(max_new_tokens=4, batch_size=1, threads=1, dtype="float32")
    bundle = bundle_candidate(
        trained=trained.model_copy(update={"digest": seal(trained.root)}), model=model, name="sees",
        prompt=PromptSpec(system="", user="{body}", answer="{reply}"), decoding=decoding,
        out=_made(tmp_path / "bundle"),
    )  # fmt: skip
    bundle = bundle.model_copy(update={"digest": seal(bundle.root)})
    out = _made(tmp_path / "export")
    write_peft(Exported(model, trained, bundle), out)
    with torch.no_grad():
        got = AutoPeftModelForCausalLM.from_pretrained(out, dtype=torch.float32)(input_ids=IDS).logits
        torch.testing.assert_close(got, load_trained(model, trained, dtype="float32")(input_ids=IDS).logits)
    with pytest.raises(FileNotFoundError, match=r"--format peft` writes one"):
        LoadedModel(bundle.root)
    ticket = {"body": "Where is my parcel?"}
    answers = load_bundle(bundle.root, base=model.root).answer([ticket])
    assert LoadedModel(bundle.root, base=str(out / "base")).predict([ticket]) == answers
    script = launch_script(read_serving(bundle.root), [("champion", "adapter")], max_rank=8, has_template=False)
    assert "`base/` of an export --format peft" in script


def test_a_head_that_only_the_whole_ties_to_the_embeddings_is_tied_in_the_text_part(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(bases["gemma3"], tmp_path / "sees"))
    config = orjson.loads((folder / "config.json").read_bytes())
    write_json(folder / "config.json", config | {"text_config": config["text_config"] | {"tie_word_embeddings": False}})
    kept = load_base(fetch(folder, tmp_path / "base"), dtype=torch.float32)
    assert kept.lm_head.weight is kept.model.embed_tokens.weight


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
