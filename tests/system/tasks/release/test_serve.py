"""A bundle answers as it did for the gate: in this process, in a new one through MLflow's champion, or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from schemas.artifacts import BundleRef, ModelRef
from tasks.model.tunegate_loader import BASE_VARIABLE
from tasks.release.register import NewVersion, Owner, move_alias, register_version
from tasks.release.serve import load_bundle
from tasks.release.tracking import begin_run, complete_run
from tests.support.project import PROJECT
from tests.tasks.release.test_serve import DECODING, MARKER, PROMPT, QUESTIONS, TICKETS, make_bundle_of

if TYPE_CHECKING:
    from mlflow import MlflowClient


@pytest.fixture
def bundle(make_bundle_of: Callable[..., BundleRef]) -> BundleRef:
    return make_bundle_of()


LOAD_CHAMPION = """
import json, sys
import mlflow
model = mlflow.pyfunc.load_model("models:/served@champion")
rows = json.load(sys.stdin)
print(json.dumps({"answers": model.predict([{"subject": r["subject"], "body": r["body"]} for r in rows])}))
"""


def test_mlflows_champion_gives_the_same_answers_in_a_new_process(
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
    new = NewVersion("1", bundle, run, tags, columns=("subject", "body"))
    version = register_version(
        client, new, name="served", owner=Owner("ours", "entry", frozenset({"entry"}).__contains__), uri=uri
    )
    move_alias(client, name="served", alias="champion", mlflow_version=version, uri=uri)
    in_this_process = load_bundle(bundle.root, base=tiny_model.root)
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
    in_new_process = json.loads(done.stdout)
    assert in_new_process["answers"] == in_this_process.answer(QUESTIONS)
    assert MARKER not in done.stderr
    for path in (path for path in store_home.rglob("*") if path.is_file()):
        assert path.suffix not in {".pkl", ".pickle", ".joblib", ".pt", ".pth"}
        assert MARKER.encode() not in path.read_bytes(), path
