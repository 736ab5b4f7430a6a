"""A kind of source in a file outside the checkout, by the real command: declared, ingested, read and described."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.artifacts import ModelRef
from tests.support.commands import NOWHERE
from tests.support.project import PROJECT
from tests.support.workplace import small_document

KIND = '''
"""`source.kind: feed`: one question and its answer on a line, fetched from a folder that stands for a server."""

from typing import Literal

from schemas.file_reading import FileReading
from tasks.storage.files import sha256_file
from tasks.sources.kind import Ingested, Part, SourceKind
from tasks.sources.readers.records import Record, in_batches


class FeedSource(FileReading):
    """Lines of a feed."""

    kind: Literal["feed"]
    server: str
    """Folder with `feed.txt`."""


class Feed(SourceKind[FeedSource]):
    spec = FeedSource
    is_remote = True

    def describe(self, source):
        return source.server

    def identity(self, source):
        return {"server": source.server}

    def ingest(self, source, ingestion):
        ingestion.folder.mkdir(parents=True, exist_ok=True)
        content = (ingestion.root / source.server / "feed.txt").read_bytes()
        (ingestion.folder / "feed.txt").write_bytes(content)
        return self.ingested(source, ingestion.folder)

    def ingested(self, source, folder):
        here = folder / "feed.txt"
        return Ingested(here.read_text().count("\\n"), 0, "today") if here.is_file() else None

    def fingerprint(self, source, place):
        here = place.ingested() / "feed.txt"
        return sha256_file(here) if here.is_file() else "nothing"

    def parts(self, source, place):
        lines = (place.ingested() / "feed.txt").read_text().splitlines()
        rows = (dict(zip(("body", "reply"), line.split(" => "))) for line in lines)
        yield Part("feed", "feed", in_batches(Record(n, None, row) for n, row in enumerate(rows, 1)))


KIND = Feed()
'''
REGISTERED = "from tasks.sources.registry import register; register('feed_source'); from flows.cli import main; main()"


@pytest.fixture
def folder(tmp_path: Path, tiny_model: ModelRef) -> Path:
    (tmp_path / "model").symlink_to(tiny_model.root)
    (tmp_path / "feed_source.py").write_text(KIND)
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
        [sys.executable, "-c", REGISTERED, *arguments], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": f"{PROJECT}:{folder}", "PREFECT_API_URL": NOWHERE},
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
