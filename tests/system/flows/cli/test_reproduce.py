"""`tunegate study reproduce` repeats a run from its inputs and finds the first byte that differs."""

import hashlib
import json
import re

import pytest

from tasks.storage.files import sha256_json
from tests.support.workplace import ForkedWorkplace

pytestmark = pytest.mark.server


def test_a_run_is_reproduced_and_a_changed_one_is_not(empty_workplace: ForkedWorkplace) -> None:
    run = empty_workplace.json("run", "small")["run_id"]
    result = empty_workplace.json("study", "reproduce", run)
    assert result["reproduced"]
    repeated = {row["step"]: row["state"] for row in result["steps"]}
    assert {"extract", "dedup", "split", "decontaminate", "base_model", "encode", "train"} <= repeated.keys()
    assert set(repeated.values()) == {"same"}
    assert re.fullmatch("[0-9a-f]{16}", empty_workplace.json("study", "compare", run, run)["runs"][0]["code"])

    # The recorded configuration is repeated, not the one now in the file.
    empty_workplace.declare(lambda document: document["pipelines"]["small"]["train"].update(seed=99))
    assert empty_workplace.json("study", "reproduce", run)["reproduced"]

    # A changed weight is found in the step and file where it first appears.
    (trained,) = (empty_workplace.home / "store" / "train").iterdir()
    weights = trained / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    manifest = trained / "MANIFEST.json"
    entries = json.loads(manifest.read_bytes())
    entries["files"][weights.name]["sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    entries["digest"] = sha256_json(entries["files"])
    manifest.write_text(json.dumps(entries))
    done = empty_workplace.run("study", "reproduce", run)
    assert done.returncode == 1
    assert "train              differs  adapter_model.safetensors: sha256" in done.stdout
    assert "NOT reproduced" in done.stdout
