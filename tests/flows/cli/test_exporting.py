"""`tunegate model export`: a tiny model's candidate in every format, by the real command."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from flows.cli.app import app
from schemas.artifacts import ModelRef
from schemas.errors import ConfigError, SecurityError, StorageError
from schemas.forget import LearnedVersion
from tasks.model.base_model import load_tokenizer
from tasks.model.chat_codec import ChatCodec
from tasks.storage.files import sha256_file
from tasks.storage.sealed_folder import MANIFEST, seal, verify
from tasks.tickets.prompts import messages_for
from tests.support.candidates import TICKETS, Candidates
from tests.support.workplace import small_document

Export = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def candidates(tmp_path_factory: pytest.TempPathFactory, tiny_model: ModelRef) -> Candidates:
    """v1 was champion, v2 is champion, v3 was blocked."""
    folder = tmp_path_factory.mktemp("export")
    document = small_document(str(tiny_model.root))
    document["pipelines"]["small"]["train"]["prompt"] = {"system": "Answer briefly.", "user": "{subject}: {body}"}
    with (folder / "pipelines.yaml").open("w") as stream:
        YAML().dump(document, stream)
    candidates = Candidates(folder, tiny_model)
    assert [candidates.add(1), candidates.add(2), candidates.add(3, "BLOCK")] == ["1", "2", "3"]
    return candidates


@pytest.fixture
def export(candidates: Candidates, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Export:
    """Run the command and check the folder against its manifest; return the JSON, with stderr under `stderr`."""

    def run(name: str, form: str, *options: str) -> dict[str, Any]:
        out = tmp_path / form
        arguments = [
            "model",
            "export",
            name,
            "--format",
            form,
            "--out",
            str(out),
            "--json",
            "-c",
            str(candidates.config),
            *options,
        ]
        assert app(arguments, standalone_mode=False) == 0
        printed = capsys.readouterr()
        result: dict[str, Any] = json.loads(printed.out)
        assert result["sha256"] == verify(out)
        manifest = json.loads((out / MANIFEST).read_bytes())
        assert {name: entry["bytes"] for name, entry in manifest["files"].items()} == result["files"]
        assert manifest["export"]["format"] == form
        assert not list(tmp_path.glob(".*"))  # no temporary folder is left
        return {**result, "export": manifest["export"], "out": out, "stderr": printed.err}

    return run


def test_peft_exports_the_registered_files_with_the_digests_of_their_inputs(
    candidates: Candidates, export: Export
) -> None:
    done, champion = export("small@champion", "peft"), candidates.ledger.champion("small")
    assert champion is not None
    for name in ("adapter_model.safetensors", "serving.json"):
        assert sha256_file(done["out"] / name) == sha256_file(champion.bundle.root / name)
    settings = json.loads((done["out"] / "adapter_config.json").read_text())
    base = Path(settings.pop("base_model_name_or_path"))
    assert base == done["out"] / "base"  # where PEFT finds it
    for path in base.iterdir():
        assert sha256_file(path) == sha256_file(champion.model.root / path.name)
    registered = json.loads((champion.bundle.root / "adapter_config.json").read_text())
    assert settings == {name: value for name, value in registered.items() if name != "base_model_name_or_path"}
    card = (done["out"] / "README.md").read_text()
    assert f'AutoTokenizer.from_pretrained("{base}")' in card.replace("'", '"')
    assert base.resolve() == base
    assert f"base_model: {champion.model.uri.split('#')[0]}\nlibrary_name: peft\n" in card
    assert "Verdict of the gate: **PROMOTE**. because" in card
    assert "names of people in the training texts: only `redact.names` replaces them" in card
    assert not (champion.bundle.root / "README.md").exists()  # a verdict is not among the files that are registered
    exported = done["export"]
    assert (exported["version"], exported["standing"], exported["promoted"], exported["let_in_by"]) == (
        "2",
        "champion",
        True,
        "promote",
    )
    assert exported["base_sha256"] == champion.model.digest
    assert exported["trained_sha256"] == champion.trained.digest
    assert exported["bundle_sha256"] == champion.bundle.digest
    assert exported["verdict_sha256"] == champion.verdict_digest
    assert exported["run_sha256"] == "inputs-2"
    assert "was never promoted" not in done["stderr"]


def test_the_lines_of_an_exports_readme_answer_a_ticket_with_the_judged_prompt(
    candidates: Candidates, export: Export, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done, champion = export("small@champion", "peft"), candidates.ledger.champion("small")
    assert champion is not None
    monkeypatch.chdir(done["out"])
    code = (done["out"] / "README.md").read_text().split("```")[1].removeprefix("python\n")
    scope: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), scope)  # noqa: S102  as a reader would run it
    printed = capsys.readouterr().out
    asked: list[list[int]] = []
    generate = scope["model"].generate

    def recorded(**options: Any) -> Any:
        asked.append(options["input_ids"][0].tolist())
        return generate(**options)

    monkeypatch.setattr(scope["model"], "generate", recorded)
    assert scope["answer"](subject="My parcel", body="Where is it?") == printed.removesuffix("\n")
    row = {"subject": "My parcel", "body": "Where is it?"}
    codec = ChatCodec.of(load_tokenizer(champion.model), champion.trained.format)
    assert asked == [codec.prompt_ids(messages_for(champion.prompt, row))]


@pytest.mark.needs_extra("signing")
def test_verify_accepts_a_signed_export_and_refuses_a_changed_one(
    export: Export, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, private, public = ec.generate_private_key(ec.SECP256R1()), tmp_path / "k.pem", tmp_path / "k.pub"
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    with pytest.raises(SecurityError, match="TG0824"):
        export("small@champion", "peft", "--sign", str(public))
    assert not (tmp_path / "peft").exists()  # fails before anything is written
    done = export("small@champion", "peft", "--sign", str(private))
    assert done["signature"] == str(tmp_path / "peft.sig")

    def check(*options: str) -> tuple[dict[str, Any], str]:
        assert app(["model", "verify", str(done["out"]), "--json", *options], standalone_mode=False) == 0
        printed = capsys.readouterr()
        return json.loads(printed.out), printed.err

    result, _ = check("--key", str(public))
    assert (result["signed"], result["version"], result["sha256"]) == (True, "2", done["sha256"])
    assert app(["model", "verify", str(done["out"])], standalone_mode=False) == 0
    assert "its signature was not checked: give --key" in capsys.readouterr().err
    (done["out"] / "serving.json").write_text("{}")
    with pytest.raises(StorageError, match="TG0510"):
        check()
    seal(done["out"])  # an attacker can rewrite the manifest, but not the signature
    check()
    with pytest.raises(SecurityError, match="TG0824"):
        check("--key", str(public))


def test_a_run_its_version_and_its_alias_give_the_same_export(export: Export, tmp_path: Path) -> None:
    first = export("run-1", "peft")
    assert first["export"]["standing"] == "former champion"
    for again in ("small@previous", "small@1"):
        (tmp_path / "peft").rename(tmp_path / again)
        assert export(again, "peft")["sha256"] == first["sha256"]
        assert (tmp_path / again / MANIFEST).read_bytes() == (tmp_path / "peft" / MANIFEST).read_bytes()


def test_a_version_that_was_never_promoted_is_marked_and_reported(export: Export) -> None:
    done = export("small@3", "peft")
    assert done["export"]["promoted"] is False
    assert (done["export"]["standing"], done["export"]["verdict"]) == ("never promoted", "BLOCK")
    assert "was never promoted (verdict BLOCK)" in done["stderr"]


def test_a_merged_model_answers_like_base_and_adapter_and_stops_at_the_trained_token(
    candidates: Candidates, export: Export
) -> None:
    from transformers import AutoTokenizer, GenerationConfig

    done = export("small@champion", "merged", "--stored", "float32")
    assert done["export"]["checked"]["argmax_agreement"] == 1.0
    assert done["export"]["checked"]["adapter_effect"] > 0.05
    tokenizer = AutoTokenizer.from_pretrained(done["out"])
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(candidates.model.root).chat_template
    assert GenerationConfig.from_pretrained(done["out"]).eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_ollama_gets_checked_weights_and_a_modelfile(export: Export) -> None:
    done = export("small@champion", "ollama")
    assert {"Modelfile", "model.safetensors", "config.json", "tokenizer.json"} <= set(done["files"])
    assert done["export"]["checked"]["argmax_agreement"] >= 0.97
    lines = [line for line in (done["out"] / "Modelfile").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "FROM ."
    assert lines[1] == 'TEMPLATE """{{ if .System }}<|im_start|>system'
    for line in ('SYSTEM """Answer briefly."""', 'PARAMETER stop "<|im_end|>"', "PARAMETER temperature 0"):
        assert line in lines
    assert f"PARAMETER num_predict {4}" in lines
    (done["out"]).rename(done["out"].with_name("first"))
    assert export("small@champion", "ollama")["sha256"] == done["sha256"]  # reproducible byte for byte


def test_vllm_gets_the_adapter_under_its_alias_and_its_version(candidates: Candidates, export: Export) -> None:
    done = export("small@champion", "vllm")
    script = (done["out"] / "serve.sh").read_text()
    assert "--lora-modules champion=adapter version-2=adapter" in script
    assert "--max-lora-rank 8 " in script
    assert "--chat-template chat_template.jinja" in script
    assert (done["out"] / "chat_template.jinja").read_text()
    assert (done["out"] / "adapter" / "adapter_model.safetensors").is_file()


def test_openai_files_contain_the_training_set_and_are_read_back(export: Export, candidates: Candidates) -> None:
    done = export("small@champion", "openai-jsonl")
    lines = [json.loads(line) for line in (done["out"] / "train.jsonl").read_text().splitlines()]
    assert [row["messages"] for row in lines] == [
        [
            {"role": "system", "content": "Answer briefly."},
            {"role": "user", "content": f"{subject}: {body}"},
            {"role": "assistant", "content": reply},
        ]
        for _, subject, body, reply in TICKETS
    ]
    assert done["export"]["checked"] == {"n_train": 3.0, "n_validation": 1.0}
    assert len(done["export"]["training_set_sha256"]) == 64


def test_a_training_set_that_was_forgotten_is_named_as_such(
    tmp_path: Path, candidates: Candidates, tiny_model: ModelRef
) -> None:
    own = Candidates(tmp_path / "home", tiny_model)
    own.folder.mkdir()
    own.config.write_bytes(candidates.config.read_bytes())
    own.add(1)
    for split in (own.ledger.root / "store" / "decontaminate").iterdir():
        shutil.rmtree(split)
    with pytest.raises(StorageError, match="TG0510") as lost:
        _export(own, "small@champion", tmp_path / "out", "openai-jsonl")
    assert "--again` recomputes the results" in (lost.value.hint or "")
    mark = LearnedVersion(name="small", version="1", run_id="run-1", how="directly", n_rows=1)
    own.ledger.mark_versions("1", [mark])
    with pytest.raises(StorageError, match="TG0510") as forgotten:
        _export(own, "small@champion", tmp_path / "out", "openai-jsonl")
    hint = forgotten.value.hint or ""
    assert hint.startswith("v1 learned directly from 1 example of a customer who was forgotten at ")
    assert hint.endswith("; `tunegate run small` trains a version without those tickets")


def test_texts_that_were_never_redacted_are_not_exported(candidates: Candidates, tmp_path: Path) -> None:
    candidates.add(9, "HOLD", spec={"curate": {"steps": []}})
    with pytest.raises(ConfigError, match=r"TG0185.*never redacted"):
        _export(candidates, "run-9", tmp_path / "out", "openai-jsonl")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("small@7", "no '7'; choose from: champion, previous, "),
        ("small@challenger", "no 'challenger'"),
        ("run-4", "run run-4 is RUNNING"),
        ("run-5", "run run-5 is ERROR"),
        ("run-6", "recorded no candidate"),
    ],
)
def test_unknown_versions_and_runs_without_a_verdict_are_refused(
    candidates: Candidates, tmp_path: Path, name: str, message: str
) -> None:
    runs = {run.run_id for run in candidates.ledger.runs()}
    for number, verdict in (("4", None), ("5", "ERROR"), ("6", "HOLD")):
        if f"run-{number}" not in runs:
            candidates.ledger.start_run(f"run-{number}", pipeline="small", model_name="small", config_json="{}")
            if verdict is not None:
                candidates.ledger.finish_run(f"run-{number}", status="DONE", verdict=verdict, exit_code=0)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=rf"TG0159.*{message}"):
        _export(candidates, name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_candidate_is_refused_and_leaves_no_folder(
    tmp_path: Path, candidates: Candidates, tiny_model: ModelRef
) -> None:
    own = Candidates(tmp_path / "home", tiny_model)
    own.folder.mkdir()
    own.config.write_bytes(candidates.config.read_bytes())
    own.add(1)
    champion = own.ledger.champion("small")
    assert champion is not None
    weights = champion.bundle.root / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(StorageError, match=r"TG0510.*file changed"):
        _export(own, "small@champion", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home"]


def test_an_existing_folder_is_never_overwritten(candidates: Candidates, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(ConfigError, match=r"TG0189.*is not empty"):
        _export(candidates, "small@champion", tmp_path / "out")
    with pytest.raises(ConfigError, match=r"TG0189.*is a file; it must be missing or empty"):
        _export(candidates, "small@champion", tmp_path / "out" / "mine")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def _export(candidates: Candidates, name: str, out: Path, form: str = "peft") -> None:
    app(
        ["model", "export", name, "--format", form, "--out", str(out), "-c", str(candidates.config)],
        standalone_mode=False,
    )


def test_a_run_with_a_removed_configuration_key_is_refused_by_name(
    candidates: Candidates, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    candidates.add(10, "HOLD", spec={"a_key_of_an_older_version": 1})
    with pytest.raises(ConfigError, match=r"TG0159.*a_key_of_an_older_version"):
        _export(candidates, "run-10", tmp_path / "out")
    capsys.readouterr()


def test_vllm_gets_the_adapters_of_several_pipelines_on_one_base(
    tmp_path: Path, tiny_model: ModelRef, capsys: pytest.CaptureFixture[str]
) -> None:
    document = small_document(str(tiny_model.root))
    small = document["pipelines"].pop("small")
    document["pipelines"] = {name: {**small, "register": {"name": name}} for name in ("shop", "bank")}
    config = tmp_path / "pipelines.yaml"
    with config.open("w") as stream:
        YAML().dump(document, stream)
    for seed, name in ((1, "shop"), (2, "bank")):
        Candidates(tmp_path, tiny_model, name).add(seed)
    where = ["--json", "-c", str(config)]
    named = ["model", "export", "shop@champion", "bank@champion"]
    out = tmp_path / "together"
    assert app([*named, "--format", "vllm", "--out", str(out), *where], standalone_mode=False) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [each["pipeline"] for each in printed["exports"]] == ["shop", "bank"]
    assert printed["sha256"] == verify(out)
    modules = next(line for line in (out / "serve.sh").read_text().splitlines() if "--lora-modules" in line)
    assert modules.split()[1:7] == [
        "shop=adapters/shop-1", "shop@champion=adapters/shop-1", "shop@version-1=adapters/shop-1",
        "bank=adapters/bank-1", "bank@champion=adapters/bank-1", "bank@version-1=adapters/bank-1",
    ]  # fmt: skip
    assert (out / "adapters" / "bank-1" / "adapter_model.safetensors").is_file()
    assert app(["model", "verify", str(out), "--json"], standalone_mode=False) == 0
    assert [each["name"] for each in json.loads(capsys.readouterr().out)["exports"]] == ["shop", "bank"]
    with pytest.raises(ConfigError, match=r"TG0139.*only --format vllm takes several"):
        app([*named, "--format", "peft", "--out", str(tmp_path / "peft"), *where], standalone_mode=False)
    with pytest.raises(ConfigError, match=r"TG0111.*shop-1 is to be exported twice"):
        app([*named, "shop@1", "--format", "vllm", "--out", str(tmp_path / "twice"), *where], standalone_mode=False)
