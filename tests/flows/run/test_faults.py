"""Every fault of a configuration that needs no trained weights, and the first command that finds it."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from flows.ledger.ledger import Ledger
from schemas.artifacts import ModelRef
from tasks.train import base_fit
from tests.support.commands import NOWHERE, run_here
from tests.support.workplace import Workplace

VALIDATE, DATA, PLAN = ("validate",), ("validate", "--data"), ("plan", "replies")
N_TICKETS = 60

Document = dict[str, Any]
Change = Callable[[Document], None]


class Project:
    """A folder with a valid pipeline of 60 tickets on a tiny model, to be spoilt."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        shutil.copytree(model, folder / "model")
        words = [" ".join(f"word{n * k % 97}" for k in range(1, 20)) for n in range(N_TICKETS)]  # no near duplicates
        rows = [f"{n},Where is parcel {n}? {words[n]},Parcel {n} is on its way.,late" for n in range(N_TICKETS)]
        (folder / "tickets.csv").write_text("\n".join(["ticket_id,body,reply,category", *rows]))

    def declare(self, *path: str, value: Any = None, **more: Any) -> None:
        """Write pipelines.yaml with a value at this path of the pipeline, and more under the same section."""
        pipeline: Document = {
            "source": {"kind": "files", "paths": ["tickets.csv"]},
            "split": {"validation_fraction": 0.1},
            "train": {"base_model": "file:model", "max_length": 128},
            "evaluate": {"slices": ["category"], "arms": ["zero_shot"], "max_new_tokens": 16},
            "gates": {"rules": [{"metric": "exact", "value_threshold": 0.5}]},
            "register": {"name": "replies"},
        }
        for keys, new in [(path, value), *(((path[0], key), each) for key, each in more.items())]:
            place = pipeline
            for key in keys[:-1]:
                place = place.setdefault(key, {})
            place[keys[-1]] = new
        with (self.folder / "pipelines.yaml").open("w") as stream:
            YAML().dump({"version": 1, "pipelines": {"replies": pipeline}}, stream)

    def codes(self, *command: str, cache: str = "cache") -> list[str]:
        """Run the command; return the codes of its errors."""
        return [each["code"] for each in self.errors(*command, cache=cache)]

    def errors(self, *command: str, cache: str = "cache") -> list[dict[str, Any]]:
        """Run the command; return its errors."""
        environ = {**os.environ, "PREFECT_API_URL": NOWHERE, "TUNEGATE_CACHE": str(self.folder / cache)}
        done = run_here((*command, "--json"), cwd=self.folder, environ=environ)
        error = json.loads(done.stdout).get("error", {}) if done.returncode else {}
        return [each for each in error.get("errors", [error]) if each]

    def config(self, **changes: Any) -> None:
        """Change the base model's config.json; None removes a field."""
        path = self.folder / "model" / "config.json"
        fields = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({name: value for name, value in fields.items() if value is not None}))


@pytest.fixture
def project(tmp_path: Path, tiny_model: ModelRef) -> Project:
    return Project(tmp_path, tiny_model.root)


def test_the_pipeline_that_is_spoilt_is_valid(project: Project) -> None:
    project.declare("train", "seed", value=1)
    for command in (VALIDATE, DATA, PLAN):
        assert project.codes(*command) == []


def test_a_base_that_fits_is_remembered_and_one_that_changes_is_checked_again(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.declare("train", "seed", value=1)
    filled: list[str] = []
    real = base_fit.read_turn_form
    monkeypatch.setattr(base_fit, "read_turn_form", lambda *args: filled.append("") or real(*args))
    for _ in range(2):
        assert project.codes(*DATA) == []
    assert len(filled) == 1
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        template = project.folder / "model" / name
        if template.is_file():
            template.write_text(template.read_text().replace("assistant", "helper").replace("message", "nothing"))
    for _ in range(2):  # what does not fit is not remembered
        assert project.codes(*DATA) == ["TG0173"]
    assert len(filled) == 3


def test_a_cache_that_cannot_be_made_is_no_reason_not_to_plan(project: Project) -> None:
    project.declare("train", "seed", value=1)
    assert project.codes(*PLAN, cache="/proc/nowhere/cache") == []


RULE = {"metric": "exact", "value_threshold": 0.5}
ENDPOINT = {"base_url": "http://127.0.0.1:9/v1", "model": "m"}
DECLARED: tuple[tuple[str, str, tuple[str, ...], Any], ...] = (
    ("a rule on an unknown metric", "TG0111", ("gates", "rules"), [RULE | {"metric": "exakt"}]),
    ("a rule on a slice that is not scored", "TG0111", ("gates", "rules"), [RULE | {"slice": "product=lamp"}]),
    ("a guard of slices that are not scored", "TG0111", ("gates", "slices"), {"by": ["channel"], "metric": "exact"}),
    ("an unknown metric of the comparison", "TG0111", ("gates", "compare"), {"metric": "exakt"}),
    ("a cost without seconds", "TG0111", ("gates", "cost"), {"machine": "l4", "usd_per_1k_max": 1.0}),
    ("canaries that are not planted", "TG0111", ("gates", "canaries"), {}),
    ("an unknown arm", "TG0103", ("evaluate", "arms"), ["zero_shoot"]),
    ("an arm without its corpus", "TG0111", ("evaluate", "arms"), ["rag"]),
    ("an arm without its endpoint", "TG0111", ("evaluate", "arms"), ["endpoint"]),
    ("an unknown routing field", "TG0103", ("evaluate", "routing_field"), "team"),
    ("a group of fields that is no column", "TG0103", ("evaluate", "fields"), "(?P<team>[a-z]+)"),
    ("a prompt with an unknown column", "TG0103", ("train", "prompt"), {"user": "{bodyy}"}),
    ("a validation metric that is not scored", "TG0111", ("train", "validation_metrics"), ["exakt"]),
    ("qlora without 4 bits", "TG0111", ("train", "quantization"), None),
    ("a cached trunk that is not frozen", "TG0111", ("train", "cache_trunk"), "on"),
    ("a sweep by an unknown metric", "TG0111", ("train", "sweep"),
     {"kind": "grid", "over": {"seed": [1, 2]}, "metric": "exakt"}),
    ("a chat template that is not there", "TG0173", ("train", "prompt"), {"chat_template": "absent.jinja"}),
    ("a machine of the budget without a price", "TG0612", ("train", "budget"), {"usd": 1, "machine": "abacus"}),
    ("a machine of the cost without a price", "TG0612", ("gates", "cost"),
     {"machine": "abacus", "usd_per_1k_max": 1.0}),
    ("labels of the judge that are not there", "TG0616", ("gates", "judge"),
     {"endpoint": ENDPOINT, "labels": "absent.jsonl"}),
    ("a metric that is not installed", "TG0199", ("evaluate", "metrics"), [{"uses": "entry_point", "name": "absent"}]),
    ("a metric whose SQL reads an unknown column", "TG0199", ("evaluate", "metrics"),
     [{"uses": "sql", "name": "tone", "select": "SELECT item_id, nope AS value FROM predictions"}]),
)  # fmt: skip
MORE: dict[str, dict[str, Any]] = {
    "a validation metric that is not scored": {"validation_items": 2},
    "qlora without 4 bits": {"method": "qlora"},
    "a machine of the cost without a price": {"latency": {}},
}
"""Settings next to the wrong one."""


@pytest.mark.parametrize(("fault", "code", "path", "value"), DECLARED, ids=[each[0] for each in DECLARED])
def test_what_needs_neither_tickets_nor_model_is_found_by_validate(
    fault: str, code: str, path: tuple[str, ...], value: Any, project: Project
) -> None:
    project.declare(*path, value=value, **MORE.get(fault, {}))
    assert set(project.codes(*VALIDATE)) == {code}
    assert code in project.codes(*PLAN)


def without_weights(project: Project) -> None:
    (project.folder / "model" / "model.safetensors").unlink()


def without_template(project: Project) -> None:
    (project.folder / "model" / "chat_template.jinja").unlink(missing_ok=True)
    path = project.folder / "model" / "tokenizer_config.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "chat_template"}))


def damaged(project: Project) -> None:
    (project.folder / "model" / "model.safetensors").write_bytes(b"no weights at all")


def damaged_tokenizer(project: Project) -> None:
    (project.folder / "model" / "tokenizer.json").write_text("{}")


def another_tokenizer(project: Project) -> None:
    shutil.copytree(project.folder / "model", project.folder / "other")
    path = project.folder / "other" / "tokenizer.json"
    path.write_text(path.read_text() + "\n")


def nothing(_project: Project) -> None:
    """The model stays as it is."""


LADDER = {
    "target": {"metric": "heldout_loss", "value": 1.0},
    "rungs": [
        {"name": "one", "set": {"method": "lora"}},
        {"name": "two", "set": {"method": "lora", "base_model": "file:other"}},
    ],
}
BASE: tuple[tuple[str, str, Callable[[Project], None], tuple[str, ...], Any], ...] = (
    ("a folder that is not there", "TG0171", nothing, ("train", "base_model"), "file:absent"),
    ("a folder without weights", "TG0171", without_weights, ("train", "seed"), 1),
    ("a folder with damaged weights", "TG0542", damaged, ("train", "seed"), 1),
    ("a folder with a damaged tokenizer", "TG0542", damaged_tokenizer, ("train", "seed"), 1),
    ("a model of impossible shape", "TG0171", lambda p: p.config(vocab_size=-1), ("train", "seed"), 1),
    ("a model without a length of its context", "TG0171",
     lambda p: p.config(model_type="mamba", max_position_embeddings=None), ("train", "seed"), 1),
    ("an architecture that transformers does not know", "TG0173", lambda p: p.config(model_type="unheard_of"),
     ("train", "seed"), 1),
    ("a model that may not be downloaded", "TG0171", nothing, ("train", "base_model"), f"hf://org/name@{'a' * 40}"),
    ("no chat template", "TG0173", without_template, ("train", "seed"), 1),
    ("examples longer than the context", "TG0111", nothing, ("train", "max_length"), 513),
    ("examples longer than the context in one trial", "TG0111", nothing, ("train", "sweep"),
     {"kind": "grid", "over": {"max_length": [128, 4096]}, "metric": "heldout_loss"}),
    ("answers as long as the context", "TG0309", nothing, ("evaluate", "max_new_tokens"), 512),
    ("answers in training as long as the context", "TG0411", nothing, ("train", "validation_max_new_tokens"), 512),
    ("more top layers than there are", "TG0181", nothing, ("train", "adapter"), {"layers": 3}),
    ("more top layers than there are in one trial", "TG0181", nothing, ("train", "sweep"),
     {"kind": "grid", "over": {"adapter.layers": [1, 9]}, "metric": "heldout_loss"}),
    ("a layer that is not there", "TG0181", nothing, ("train", "adapter"), {"layers": [0, 2]}),
    ("a module that is not there", "TG0181", nothing, ("train", "adapter"), {"target_modules": ["q_porj"]}),
    ("4 bits of a quantised model", "TG0111", lambda p: p.config(quantization_config={"quant_method": "gptq"}),
     ("train", "method"), "qlora"),
    ("a cached trunk without a fast path", "TG0111", lambda p: p.config(model_type="gemma3_text"),
     ("train", "cache_trunk"), "on"),
    ("sharded embeddings", "TG0111", without_template, ("train", "sharding"), "full"),
    ("a ladder whose losses cannot be compared", "TG0160", another_tokenizer, ("train", "ladder"), LADDER),
)  # fmt: skip
MORE_OF_BASE: dict[str, dict[str, Any]] = {
    "answers in training as long as the context": {"validation_items": 2},
    "a cached trunk without a fast path": {"adapter": {"layers": 1}},
    "sharded embeddings": {"processes": 2, "prompt": {"chat_template": "llama3"}},
    "a ladder whose losses cannot be compared": {"method": "ladder"},
}


@pytest.mark.parametrize(("fault", "code", "spoil", "path", "value"), BASE, ids=[each[0] for each in BASE])
def test_what_needs_the_base_model_is_found_by_plan(
    fault: str, code: str, spoil: Callable[[Project], None], path: tuple[str, ...], value: Any, project: Project
) -> None:
    spoil(project)
    project.declare(*path, value=value, **MORE_OF_BASE.get(fault, {}))
    assert project.codes(*PLAN) == [code]
    assert project.codes(*DATA) == [code]


TICKETS: tuple[tuple[str, str, tuple[str, ...], Any], ...] = (
    ("few-shot prompts over the context", "TG0309", ("evaluate", "arms"), ["few_shot"]),
    ("few-shot prompts over the context by tokens alone", "TG0309", ("evaluate", "arms"), ["few_shot"]),
    ("retrieved examples over the context", "TG0309", ("evaluate", "arms"), ["retrieval"]),
    ("more examples than tickets", "TG0221", ("evaluate", "arms"), ["few_shot"]),
)


@pytest.mark.parametrize(("fault", "code", "path", "value"), TICKETS, ids=[each[0] for each in TICKETS])
def test_prompts_that_these_tickets_cannot_make_are_found_by_plan(
    fault: str, code: str, path: tuple[str, ...], value: Any, project: Project
) -> None:
    if code == "TG0221":
        file = project.folder / "tickets.csv"
        file.write_text("\n".join(file.read_text().splitlines()[:30]))
    project.declare(*path, value=value, few_shot_examples=14 if "by tokens" in fault else 32)
    assert project.codes(*PLAN) == [code]
    assert project.codes(*DATA) == [code]


def test_a_prompt_that_is_too_long_for_two_base_models_of_one_family_is_named_once(project: Project) -> None:
    project.config(max_position_embeddings=64)
    shutil.copytree(project.folder / "model", project.folder / "other")
    ladder = {"base_model": "file:model", "max_length": 32, "method": "ladder", "ladder": LADDER}
    project.declare("train", value=ladder)
    assert project.codes(*PLAN) == ["TG0309"]


@pytest.mark.parametrize(("context", "hint"), [(128, "lower evaluate.max_new_tokens"), (48, "shorten train.prompt")])
def test_the_hint_for_a_prompt_that_is_too_long_names_what_helps(project: Project, context: int, hint: str) -> None:
    project.config(max_position_embeddings=context)
    project.declare("train", "max_length", value=32)
    pipelines = project.folder / "pipelines.yaml"
    pipelines.write_text(pipelines.read_text().replace("max_new_tokens: 16", f"max_new_tokens: {context * 3 // 4}"))
    (found,) = project.errors(*PLAN)
    assert (found["code"], found["hint"][: len(hint)]) == ("TG0309", hint), found


EMPTY: tuple[tuple[str, tuple[str, ...], Any], ...] = (
    ("a prompt", ("train", "prompt"), {"user": "{product}: {body}"}),
    ("an answer", ("train", "prompt"), {"answer": "{priority}"}),
    ("slices", ("evaluate", "slices"), ["product"]),
    ("clusters", ("gates", "cluster_by"), "customer_id"),
    ("a classifier", ("evaluate", "routing_field"), "priority"),
)


@pytest.mark.parametrize(("needs", "path", "value"), EMPTY, ids=[each[0] for each in EMPTY])
def test_a_column_that_no_ticket_has_is_found_in_the_source(
    needs: str, path: tuple[str, ...], value: Any, project: Project
) -> None:
    project.declare(*path, value=value, **({"arms": ["majority"]} if needs == "a classifier" else {}))
    assert project.codes(*DATA) == ["TG0204"]


MACHINE: tuple[tuple[str, str, tuple[str, ...], Any], ...] = (
    ("paged moments without CUDA", "TG0111", ("train", "optimizer"), "paged_adamw_8bit"),
    ("an endpoint without its key", "TG0616", ("evaluate", "endpoint"), ENDPOINT | {"api_key_env": "NO_SUCH_KEY"}),
    ("a judge without its key", "TG0616", ("gates", "judge"), {"endpoint": ENDPOINT | {"api_key_env": "NO_SUCH_KEY"}}),
)


@pytest.mark.parametrize(("fault", "code", "path", "value"), MACHINE, ids=[each[0] for each in MACHINE])
def test_what_this_machine_lacks_is_found_by_plan(
    fault: str, code: str, path: tuple[str, ...], value: Any, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.run.faults.detect_device", lambda: "cpu")  # also where there is a card
    project.declare(*path, value=value, **({"arms": ["endpoint"]} if path[-1] == "endpoint" else {}))
    assert project.codes(*VALIDATE) == []
    assert project.codes(*PLAN) == [code]


@pytest.mark.parametrize(
    ("code", "path", "value"),
    [
        ("TG0612", ("train", "budget"), {"usd": 1, "machine": "abacus"}),
        ("TG0181", ("train", "adapter"), {"layers": 3}),
        ("TG0616", ("gates", "judge"), {"endpoint": ENDPOINT | {"api_key_env": "NO_SUCH_KEY"}}),
    ],
)
def test_a_run_does_not_curate_with_any_of_them(code: str, path: tuple[str, ...], value: Any, project: Project) -> None:
    project.declare(*path, value=value)
    assert project.codes("run", "replies") == [code]
    home = project.folder / ".tunegate"
    (row,) = Ledger(home).runs()
    assert (row.status, row.reason[:6]) == ("FAILED", code)
    assert not (home / "store" / "extract").exists()


def test_curation_alone_needs_none_of_it(project: Project) -> None:
    project.declare("gates", "judge", value={"endpoint": ENDPOINT | {"api_key_env": "NO_SUCH_KEY"}})
    for command in (("data", "curate", "replies"), ("run", "replies", "--until", "curate")):
        assert project.codes(*command) == [], command
    assert project.codes("run", "replies") == ["TG0616"]


def test_a_ladder_over_converted_models_is_planned(project: Project, tiny_gguf: Path) -> None:
    for name in ("first", "second"):
        shutil.copy(tiny_gguf, project.folder / f"{name}.gguf")
    rungs = [
        {"name": name, "set": {"method": "lora", "base_model": f"file:{name}.gguf"}} for name in ("first", "second")
    ]
    ladder = {"target": {"metric": "heldout_loss", "value": 1.0}, "rungs": rungs}
    project.declare("train", "ladder", value=ladder, method="ladder", base_model="file:first.gguf", max_length=32)
    assert project.codes(*PLAN) == project.codes(*DATA) == []


def test_a_prompt_over_the_context_ends_the_run_before_it_trains(workplace: Workplace) -> None:
    def few_shot(document: Document) -> None:
        small = document["pipelines"]["small"]
        small["train"]["seed"] = 9  # which was never trained
        small["evaluate"] |= {"arms": ["few_shot", "majority"], "few_shot_examples": 32}

    workplace.declare(few_shot)
    trained = sorted((workplace.home / "store" / "train").iterdir())
    done = workplace.run("run", "small")
    assert done.returncode == 3, done.stderr
    assert "error[TG0309]" in done.stderr
    assert sorted((workplace.home / "store" / "train").iterdir()) == trained
    ledger = Ledger(workplace.home)
    (row,) = ledger.runs()
    steps = {step.step: step.state for step in ledger.steps(row.run_id)}
    assert steps["items"] in ("done", "reused")
    assert steps["fits"] == "failed"
    assert not {"encode", "train"} & steps.keys()
