"""A bundle answers as the gate had it answer: here, in a fresh process through MLflow's champion, or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from schemas.artifacts import BundleRef, GateDecision, ModelRef, Scores, TrainedRef
from schemas.evaluation import DecodingSpec
from schemas.training import AdapterSpec, Format, Method, PromptSpec, TrainSpec
from tasks.files import seal
from tasks.release.bundle import bundle_candidate
from tasks.release.register import move_alias, register_version
from tasks.release.serve import BASE_VARIABLE, load_bundle
from tasks.release.tracking import begin_run, complete_run
from tests.support.project import PROJECT

if TYPE_CHECKING:
    from mlflow import MlflowClient

pytestmark = pytest.mark.filterwarnings(  # of mlflow and peft about themselves
    "ignore:The ..noload.. loader strategy:DeprecationWarning",
    "ignore:.*Any type hint is inferred:UserWarning",
    "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning",
)

MARKER = "zyxmarker"
PROMPT = PromptSpec(system="Answer briefly.", user="Subject: {subject}\n\n{body}", answer="{reply}")
DECODING = DecodingSpec(max_new_tokens=12, batch_size=2, threads=1, dtype="float32")
TICKETS: list[dict[str, Any]] = [
    {"subject": "Parcel", "body": f"Hello, my parcel {MARKER} has not arrived.", "reply": "We are sorry to hear that."},
    {"subject": "Charge", "body": "Please refund the second charge <|im_end|> on my account.", "reply": "Thank you."},
    {"subject": None, "body": "The lamp does not turn on; what shall I do next?", "reply": "Our courier will come."},
]
QUESTIONS = [{"subject": row["subject"], "body": row["body"]} for row in TICKETS]


@pytest.fixture(scope="session")
def make_bundle_of(tiny_model: ModelRef, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., BundleRef]:
    """Train (that is: disturb) a tiny model by a method and bundle it; made once per method and format."""
    import torch

    from tasks.model.adapter import open_for_training, save_trained, trainable_tensors

    made: dict[tuple[Method, Format], BundleRef] = {}

    def make(method: Method = "lora", form: Format = "instruction") -> BundleRef:
        if (method, form) in made:
            return made[method, form]
        root = tmp_path_factory.mktemp(f"{method}-{form}")
        for name in ("trained", "bundle", "decision"):
            (root / name).mkdir()
        spec = TrainSpec(
            base_model=tiny_model.uri, method=method, learning_rate=1e-4, dtype="float32", adapter=AdapterSpec(rank=4)
        )
        model = open_for_training(tiny_model, spec)
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for tensor in trainable_tensors(model).values():
                tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.05)
        save_trained(model, spec, base=tiny_model, out=root / "trained")
        (root / "trained" / "training.json").write_text(
            json.dumps({"quantization": spec.quantization.model_dump(mode="json")})
        )
        trained = TrainedRef(
            root=root / "trained", digest=seal(root / "trained"), method=method, format=form,
            base_digest=tiny_model.digest, n_trainable=1, n_steps=1, n_tokens=1, train_loss=1.0,
        )  # fmt: skip
        (root / "decision" / "decision.md").write_text("# PROMOTE\n")
        decision = GateDecision(
            root=root / "decision", verdict="PROMOTE", reason="better", findings=(), n_items=3, champion_version=None
        )
        scores = Scores(root=root, arm="tuned", n_items=3, means={"exact": 0.5})
        bundle = bundle_candidate(
            trained=trained, model=tiny_model, scores=scores, decision=decision, name="served", prompt=PROMPT,
            decoding=DECODING, out=root / "bundle",
        )  # fmt: skip
        made[method, form] = bundle.model_copy(update={"digest": seal(bundle.root)})
        return made[method, form]

    return make


@pytest.fixture
def bundle(make_bundle_of: Callable[..., BundleRef]) -> BundleRef:
    return make_bundle_of()


LOAD_CHAMPION = """
import json, sys
import mlflow
model = mlflow.pyfunc.load_model("models:/served@champion")
rows = json.load(sys.stdin)
served = model._model_impl
print(json.dumps({"answers": model.predict([{"subject": r["subject"], "body": r["body"]} for r in rows]),
                  "losses": served.losses(rows)}))
"""


def test_mlflows_champion_gives_the_same_losses_and_answers_in_a_fresh_process(
    bundle: BundleRef,
    tiny_model: ModelRef,
    client: MlflowClient,
    uri: str,
    make_record: Callable[..., Any],
    store_home: Path,
    tmp_path: Path,
) -> None:
    run = begin_run(client, make_record("served"), experiment="tunegate", uri=uri)
    complete_run(client, run, make_record("served"), uri=uri)
    tags = {"tunegate.verdict": "PROMOTE"}
    version = register_version(client, bundle, name="served", version="1", mlflow_run=run, tags=tags, uri=uri)
    move_alias(client, name="served", alias="champion", mlflow_version=version, uri=uri)
    here = load_bundle(bundle.root, base=tiny_model.root)
    environ = {
        **os.environ,
        "MLFLOW_TRACKING_URI": uri,
        BASE_VARIABLE: str(tiny_model.root),
        "PYTHONPATH": str(PROJECT),
    }
    done = subprocess.run(
        [sys.executable, "-c", LOAD_CHAMPION], input=json.dumps(TICKETS), cwd=tmp_path, env=environ,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    there = json.loads(done.stdout)
    assert there["losses"] == here.losses(TICKETS)
    assert there["answers"] == here.answer(QUESTIONS)
    assert MARKER not in done.stderr
    for path in (path for path in store_home.rglob("*") if path.is_file()):
        assert path.suffix not in {".pkl", ".pickle", ".joblib", ".pt", ".pth"}
        assert MARKER.encode() not in path.read_bytes(), path
