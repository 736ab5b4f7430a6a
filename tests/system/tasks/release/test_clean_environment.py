"""A registered model and an exported adapter, loaded where their requirements are installed and nothing of tunegate."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from packaging.requirements import Requirement

from schemas.artifacts import BundleRef, ModelRef
from tasks.model.tunegate_loader import BASE_VARIABLE
from tasks.release.export_adapter import write_peft
from tasks.release.export_format import Exported
from tasks.release.register import NewVersion, Owner, register_version
from tasks.release.serve import load_bundle, read_serving
from tasks.release.tracking import begin_run
from tests.support.environments import clean_python
from tests.tasks.release.test_serve import QUESTIONS, make_bundle_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOAD = """
import json, sys
from importlib.util import find_spec

import mlflow, torch
from peft import AutoPeftModelForCausalLM

artifacts, adapter = sys.argv[1:]
given = json.load(sys.stdin)
model = mlflow.pyfunc.load_model(artifacts)
peft = AutoPeftModelForCausalLM.from_pretrained(adapter, dtype=torch.float32)
with torch.inference_mode():
    logits = peft(torch.tensor([given["ids"]])).logits[0, -1]
print(json.dumps({
    "here": [name for name in ("tasks.release", "schemas", "flows") if find_spec(name.partition(".")[0])],
    "answers": model.predict(given["questions"]),
    "example": model.predict(model.metadata.load_input_example(artifacts)),
    "inputs": model.metadata.signature.inputs.input_names(), "logits": logits.tolist(),
}))
"""


def test_both_load_where_only_their_requirements_are_installed(
    make_bundle_of: Callable[..., BundleRef],
    tiny_model: ModelRef,
    client: MlflowClient,
    uri: str,
    make_record: Callable[..., Any],
    tmp_path: Path,
) -> None:
    import torch

    from tasks.model.adapter import load_trained

    bundle = make_bundle_of()
    trained = read_serving(bundle.root).trained.model_copy(update={"root": bundle.root})
    run = begin_run(client, make_record("clean"), experiment="tunegate", uri=uri)
    new = NewVersion("1", bundle, run, {}, description="**PROMOTE**", columns=("subject", "body"), base=tiny_model.root)
    number = register_version(
        client, new, name="clean", owner=Owner("ours", "entry", frozenset({"entry"}).__contains__), uri=uri
    )
    version = client.get_model_version("clean", number)
    assert version.description == "**PROMOTE**"
    artifacts = Path(version.source.removeprefix("file://"))
    exported = tmp_path / "exported"
    exported.mkdir()
    write_peft(Exported(tiny_model, trained, bundle), exported)

    ids = load_bundle(bundle.root, base=tiny_model.root)._prompt(QUESTIONS[0])
    with torch.inference_mode():
        logits = load_trained(tiny_model, trained, dtype="float32")(torch.tensor([ids])).logits[0, -1].tolist()
    requirements = [Requirement(line) for line in (artifacts / "requirements.txt").read_text().splitlines()]
    place = tmp_path / "elsewhere"
    place.mkdir()
    (place / "tasks.py").write_text("raise SystemExit('a module of the user')\n")
    done = subprocess.run(
        [clean_python(tmp_path / "venv", requirements), "-c", LOAD, artifacts, exported],
        input=json.dumps({"ids": ids, "questions": QUESTIONS}), cwd=place, capture_output=True, text=True, check=False,
        env={
            "PATH": os.environ["PATH"], "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["here"] == ["tasks.release"]  # the user's tasks.py, which nothing imported
    assert found["answers"] == load_bundle(bundle.root, base=tiny_model.root).answer(QUESTIONS)
    assert len(found["example"]) == 1
    assert found["inputs"] == ["subject", "body"]
    assert found["logits"] == pytest.approx(logits, abs=1e-4)
    assert BASE_VARIABLE not in (exported / "README.md").read_text()
    assert "AutoPeftModelForCausalLM.from_pretrained" in (exported / "README.md").read_text()
