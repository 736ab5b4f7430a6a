"""A kind of source from an installed package, by the real command: declared, ingested, read, described and changed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.artifacts import ModelRef
from tests.support.commands import NOWHERE
from tests.support.environments import uv
from tests.support.project import PROJECT
from tests.support.workplace import small_document

PLUGIN = PROJECT / "infra" / "examples" / "plugin"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("wheel")
    uv("build", "--wheel", "--no-build-isolation", "--out-dir", built, PLUGIN)
    [wheel] = built.glob("*.whl")
    return wheel


@pytest.fixture
def folder(tmp_path: Path, tiny_model: ModelRef, wheel: Path) -> Path:
    (tmp_path / "model").symlink_to(tiny_model.root)
    uv("pip", "install", "--no-deps", "--target", tmp_path / "site", wheel)
    (tmp_path / "server").mkdir()
    publish(tmp_path, 30)
    return tmp_path


def publish(folder: Path, n_lines: int) -> None:
    lines = (f"Where is order {n}? {'x' * n} => It is with courier {n}.\n" for n in range(1, n_lines + 1))
    (folder / "server" / "feed.txt").write_text("".join(lines))


def declare(folder: Path, **keys: object) -> Path:
    document = small_document("model")
    document["pipelines"]["small"]["source"] = {"kind": "feed", "server": "server", **keys}
    (folder / "pipelines.yaml").write_text(json.dumps(document, indent=1))
    return folder / "pipelines.yaml"


def tunegate(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": f"{PROJECT}:{folder / 'site'}", "PREFECT_API_URL": NOWHERE},
    )  # fmt: skip


def test_a_new_kind_of_source_is_ingested_fingerprinted_and_curated(folder: Path) -> None:
    declare(folder)
    for n_rows in (30, 40):
        publish(folder, n_rows)
        done = tunegate(folder, "data", "curate", "small", "--json")
        assert done.returncode == 0, done.stderr
        assert f"feed: {n_rows} rows ingested, as of today" in done.stderr
        first = json.loads(done.stdout)["funnel"][0]
        assert (first["step"], first["n_in"], first["n_out"]) == ("extract", n_rows, n_rows)

    parsing = folder / "site" / "acme_tickets" / "lines.py"
    parsing.write_text(parsing.read_text().replace("line.split", "line.upper().split"))
    done = tunegate(folder, "plan", "small", "--json")
    [extract] = [step for step in json.loads(done.stdout)["steps"] if step["step"] == "extract"]
    assert extract["why"] == "code of acme_tickets.lines changed"


def test_a_wrong_key_of_a_new_kind_is_shown_in_its_place(folder: Path) -> None:
    lines = declare(folder, sever="x").read_text().splitlines()
    done = tunegate(folder, "validate")
    line = next(number for number, text in enumerate(lines, 1) if 'sever":' in text)
    assert done.returncode == 2
    assert f"pipelines.yaml:{line}:" in done.stderr
    assert "unknown key `pipelines.small.source.sever`" in done.stderr
    assert "did you mean `server`" in done.stderr


def test_the_json_schema_has_the_keys_of_a_new_kind(folder: Path) -> None:
    done = tunegate(folder, "ops", "schema")
    keys = json.loads(done.stdout)["$defs"]["FeedSource"]["properties"]
    assert keys["server"]["description"] == "Folder with `feed.txt`."


def test_a_plug_in_that_cannot_be_loaded_is_named_with_its_package(folder: Path) -> None:
    declare(folder)
    (folder / "site" / "acme_tickets" / "lines.py").unlink()
    done = tunegate(folder, "validate")
    assert done.returncode == 2
    assert "the plug-in `feed` of acme-tickets 1.0 cannot be used: ModuleNotFoundError" in done.stderr
    assert "uv pip uninstall" in done.stderr
    assert "Traceback" not in done.stderr
