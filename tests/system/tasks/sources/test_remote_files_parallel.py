"""Several remote files at a time: as many as declared, with the same result as one after another."""

import json
from pathlib import Path

import pytest

from tasks.sources.copies import FETCHED, FILES
from tests.support.file_server import FileServer
from tests.support.ingest_process import Ingests
from tests.support.synced import extract, folder_of, tickets
from tests.tasks.sources.test_remote_files_parallel import N_FILES, row, source, storage

PLACES = ("copies.part", "copies.fetched", "copies.renamed", "copies.noted")


@pytest.mark.parametrize("place", PLACES)
def test_after_a_kill_during_parallel_fetches_no_row_is_lost_or_doubled_and_no_recorded_file_fetched_twice(
    storage: FileServer, tmp_path: Path, process: Ingests, place: str
) -> None:
    spec = source(storage)
    noted: set[str] = set()
    for number in range(1, 6):
        assert not process.ingest(spec, tmp_path, f"{place}:{1 + number % 2}")
        storage.requests = [each for each in storage.requests if each.query]
        lines = folder_of(spec, tmp_path) / FETCHED
        noted |= {json.loads(line)["url"] for line in lines.read_bytes().splitlines()} if lines.is_file() else set()
    assert process.ingest(spec, tmp_path)
    assert not noted & {f"s3:/{each.path}" for each in storage.requests if not each.query}
    assert sorted(tickets(extract(spec, tmp_path))) == sorted(f"t{n}" for n in range(N_FILES))
    assert len(list((folder_of(spec, tmp_path) / FILES).iterdir())) == N_FILES
    assert not list(folder_of(spec, tmp_path).glob("part-*"))
