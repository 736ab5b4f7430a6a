"""Parallel downloads: never more at a time than `parallel`, with the same result as one after the other."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import ConfigError, DataError, ServiceError
from schemas.remote_source import RemoteFilesSource
from schemas.secrets import masked
from tasks.sources import web
from tasks.sources.copies import FETCHED, read_snapshot
from tasks.sources.registry import check_source, ingest_source, ingested
from tasks.sources.remote_fetch import Room
from tasks.sources.s3 import CREDENTIALS_FILE, profile_keys
from tests.support.file_server import KEY_ID, SECRET, FileServer, file_server
from tests.support.ingest_process import DELAY_S
from tests.support.synced import fingerprint, folder_of, sync, tickets

N_FILES = 12
PATTERN = "s3://desk/exports/*.jsonl"


def row(number: int) -> str:
    return json.dumps({"ticket_id": f"t{number}", "customer_id": "c", "body": f"q {number}", "reply": "a"}) + "\n"


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setattr(web, "FIRST_DELAY_S", DELAY_S)
    with file_server() as server:
        for number in range(N_FILES):
            server.put(f"/desk/exports/{number:02d}.jsonl", row(number))
        yield server


def source(server: FileServer, **options: Any) -> RemoteFilesSource:
    return RemoteFilesSource(kind="remote_files", endpoint=server.url, **{"urls": (PATTERN,), **options})


class Crowd:
    """Delays each response until so many requests are open, and counts the most that were."""

    def __init__(self, server: FileServer, at_once: int) -> None:
        self.now, self.most, self._lock = 0, 0, threading.Lock()
        self._met = threading.Barrier(at_once)
        self._shown = server.etag
        server.etag = self._etag  # type: ignore[method-assign]

    def _etag(self, path: str) -> str:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            self._met.wait(120)
        finally:
            with self._lock:
                self.now -= 1
        return self._shown(path)


@pytest.mark.parametrize("parallel", [1, 3, 6])
def test_as_many_files_are_fetched_at_once_as_declared(storage: FileServer, tmp_path: Path, parallel: int) -> None:
    urls = tuple(f"s3://desk/exports/{number:02d}.jsonl" for number in range(N_FILES))  # no listing asks for an ETag
    one, many = source(storage, urls=urls, parallel=1), source(storage, urls=urls, parallel=parallel)
    sync(one, tmp_path / "one")
    crowd = Crowd(storage, parallel)
    assert len(tickets(sync(many, tmp_path / "many"))) == N_FILES
    assert crowd.most == parallel
    assert fingerprint(one, tmp_path / "one") == fingerprint(many, tmp_path / "many")
    snapshots = [read_snapshot(folder_of(one, tmp_path / name)) for name in ("one", "many")]
    assert len({each.copies for each in snapshots if each is not None}) == 1


def test_a_server_that_stumbles_everywhere_gives_every_row_once(storage: FileServer, tmp_path: Path) -> None:
    for number in range(N_FILES):
        storage.moods[f"/desk/exports/{number:02d}.jsonl"] = ["half", "429", "500", "half"][: number % 5]
    assert sorted(tickets(sync(source(storage), tmp_path))) == sorted(f"t{n}" for n in range(N_FILES))


def test_of_several_faults_the_first_by_url_is_reported_and_what_came_whole_stays(
    storage: FileServer, tmp_path: Path
) -> None:
    for number, mood in ((5, "418"), (6, "401"), (7, "418")):
        storage.forever[f"/desk/exports/{number:02d}.jsonl"] = mood
    spec = source(storage, parallel=4)
    with pytest.raises(ServiceError) as raised:
        ingest_source(spec, root=tmp_path, landed=tmp_path / "landed")
    assert raised.value.where in {f"s3://desk/exports/0{n}.jsonl" for n in (5, 6, 7)}
    assert ingested(spec, landed=tmp_path / "landed") is None
    assert not list(folder_of(spec, tmp_path).glob("part-*"))
    n_requests = sum(not each.query for each in storage.requests)
    assert n_requests < N_FILES, "no further file is started"
    kept = {json.loads(line)["url"] for line in (folder_of(spec, tmp_path) / FETCHED).read_bytes().splitlines()}
    storage.forever.clear()
    storage.requests = []
    assert len(tickets(sync(spec, tmp_path))) == N_FILES
    assert not any(f"s3:/{each.path}" in kept for each in storage.requests if not each.query)


def test_a_fault_does_not_wait_for_the_patience_of_others(
    storage: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "FIRST_DELAY_S", 1.0)
    storage.forever["/desk/exports/00.jsonl"] = "wait 200"
    storage.forever["/desk/exports/01.jsonl"] = "401"
    begun = time.monotonic()
    with pytest.raises(ServiceError, match=r"TG0707"):
        ingest_source(source(storage), root=tmp_path, landed=tmp_path / "landed")
    assert time.monotonic() - begun < 60


def test_together_they_may_not_be_more_than_the_limit(storage: FileServer, tmp_path: Path) -> None:
    for number in range(N_FILES):
        storage.put(f"/desk/exports/{number:02d}.jsonl", b"\n" * 100_000)
    with pytest.raises(DataError, match="TG0270"):
        ingest_source(source(storage, max_total_mb=1), root=tmp_path, landed=tmp_path / "landed")
    held = sum(path.stat().st_size for path in folder_of(source(storage), tmp_path).rglob("*") if path.is_file())
    assert held < (1 << 20) + 20_000
    del storage.files["/desk/exports/11.jsonl"], storage.files["/desk/exports/10.jsonl"]
    storage.moods["/desk/exports/03.jsonl"] = ["half", "changed"]  # a half gives its room back
    ingest_source(source(storage, max_total_mb=1), root=tmp_path, landed=tmp_path / "landed")


def test_room_is_shared_to_the_byte() -> None:
    room, taken = Room(10_000), []

    def take() -> None:
        taken.extend(7 for _ in range(1000) if room.take(7))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert (sum(taken), room.has(4), room.has(5)) == (9996, True, False)
    room.give_back(1)
    assert room.take(5)
    assert not room.take(1)


def test_a_named_profile_gives_the_keys_and_they_are_masked(
    storage: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "credentials"
    file.write_text(
        f"[default]\naws_access_key_id = WRONG\naws_secret_access_key = wrong-secret\n\n"
        f"[desk]\naws_access_key_id={KEY_ID}\naws_secret_access_key = {SECRET}\naws_session_token = tok%en-1\n"
    )
    monkeypatch.setenv(CREDENTIALS_FILE, str(file))
    storage.secret = SECRET
    spec = source(storage, profile="desk")
    check_source(spec)
    assert len(tickets(sync(spec, tmp_path))) == N_FILES
    assert storage.requests[-1].headers["x-amz-security-token"] == "tok%en-1"
    assert masked(f"x {SECRET} y tok%en-1") == (
        "x (aws_secret_access_key of profile desk) y (aws_session_token of profile desk)"
    )
    with pytest.raises(ServiceError, match="TG0707"):
        sync(source(storage, profile="default"), tmp_path / "other")
    for path in filter(Path.is_file, (tmp_path / "landed").rglob("*")):
        assert SECRET.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("aws_secret_access_key = hush-hush-1", "does not consist of sections"),
        ("[desk\naws_secret_access_key = hush-hush-1", "does not consist of sections"),
        ("[other]\naws_secret_access_key = hush-hush-1", r"no section \[desk\]"),
        ("[desk]\naws_secret_access_key = hush-hush-1", "lacks aws_access_key_id"),
        ("[desk]\naws_access_key_id = hush-hush-1", "lacks aws_secret_access_key"),
        ("[desk]\ncredential_process = /bin/hush-hush-1", "`credential_process`, which is not supported"),
        ("[desk]\nrole_arn = hush-hush-1\nsource_profile = x", "`role_arn`, which is not supported"),
    ],
)
def test_a_profile_without_keys_is_refused_without_content_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, message: str
) -> None:
    file = tmp_path / "credentials"
    if text is not None:
        file.write_text(text)
    monkeypatch.setenv(CREDENTIALS_FILE, str(file))
    with pytest.raises(ConfigError, match=rf"TG0130.*{message}") as raised:
        profile_keys("desk")
    assert "hush-hush-1" not in str(raised.value)
