"""Files from S3-compatible storage and web servers arrive complete and once, despite failures."""

import gzip
import hashlib
import json
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import DataError, LockedError, SecurityError, ServiceError
from schemas.remote_source import RemoteFilesSource
from tasks.sources import web
from tasks.sources.copies import FILES, locked, read_snapshot
from tasks.sources.registry import ingest_source, ingested
from tasks.sources.s3 import Credentials, signed_headers
from tests.support.file_server import KEY_ID, SECRET, FileServer, file_server
from tests.support.ingest_process import DELAY_S
from tests.support.synced import extract, fingerprint, folder_of, sync, tickets

PATTERN = "s3://desk/exports/*.jsonl"


def rows(*numbers: int, text: str = "question") -> str:
    return "".join(
        json.dumps({"ticket_id": f"t{n}", "customer_id": f"c{n % 3}", "body": f"{text} {n}", "reply": f"answer {n}"})
        + "\n"
        for n in numbers
    )


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setattr(web, "FIRST_DELAY_S", DELAY_S)
    with file_server() as server:
        for number in range(5):
            server.put(f"/desk/exports/{number}.jsonl", rows(number * 2, number * 2 + 1))
        yield server


def source(server: FileServer, *urls: str, **options: Any) -> RemoteFilesSource:
    named = [url if "://" in url else server.url + url for url in urls or (PATTERN,)]
    return RemoteFilesSource(kind="remote_files", urls=tuple(named), endpoint=server.url, **options)


def test_objects_of_a_pattern_and_a_file_of_a_web_server_become_rows_that_name_their_url(
    storage: FileServer, tmp_path: Path
) -> None:
    storage.put("/desk/exports/below/9.jsonl", rows(90))  # `*` stays in its folder
    storage.put("/desk/exports/a b+%41ü.jsonl", rows(50))
    storage.put("/web/more.csv.gz", gzip.compress(b"ticket_id,body,reply\nt99,q,a\n"))
    spec = source(storage, PATTERN, "/web/more.csv.gz?download=1")
    found = tickets(sync(spec, tmp_path))
    assert sorted(found) == sorted([*(f"t{n}" for n in range(10)), "t50", "t99"])
    assert found["t99"]["source"] == f"{storage.url}/web/more.csv.gz?download=1"
    assert found["t3"]["source"] == "s3://desk/exports/1.jsonl"
    assert found["t50"]["source"] == "s3://desk/exports/a b+%41ü.jsonl"
    assert found["t3"]["source_line"] == 2
    deep = source(storage, "s3://desk/**/?.jsonl")
    assert sorted(tickets(sync(deep, tmp_path))) == sorted([*(f"t{n}" for n in range(10)), "t90"])


def test_what_has_not_changed_is_not_fetched_again_and_the_snapshot_is_the_same(
    storage: FileServer, tmp_path: Path
) -> None:
    storage.put("/web/one.jsonl", rows(70))
    spec = source(storage, PATTERN, "/web/one.jsonl")
    sync(spec, tmp_path)
    first, storage.requests = fingerprint(spec, tmp_path), []
    sync(spec, tmp_path)
    assert [each.status for each in storage.requests if "list-type" not in each.query] == [304]
    assert fingerprint(spec, tmp_path) == first
    storage.put("/desk/exports/2.jsonl", rows(4, 5, text="changed"))
    storage.requests = []
    assert tickets(sync(spec, tmp_path))["t4"]["body"] == "changed 4"
    assert [each.path for each in storage.requests if each.status == 200 and not each.query] == [
        "/desk/exports/2.jsonl"
    ]
    assert fingerprint(spec, tmp_path) != first
    assert len(list((folder_of(spec, tmp_path) / FILES).iterdir())) == 6


def test_without_etags_the_request_names_the_time_of_the_last_change_and_the_bytes_decide(
    storage: FileServer, tmp_path: Path
) -> None:
    storage.has_etags = False
    storage.put("/web/one.jsonl", rows(1))
    spec = source(storage, "/web/one.jsonl")
    sync(spec, tmp_path)
    first = fingerprint(spec, tmp_path)
    sync(spec, tmp_path)  # this server knows no If-Modified-Since and sends it again
    assert storage.requests[-1].headers["if-modified-since"] == "Mon, 01 Jun 2026 00:00:00 GMT"
    assert fingerprint(spec, tmp_path) == first


@pytest.mark.parametrize("mood", ["500", "503", "429", "half", "changed"])
@pytest.mark.parametrize("place", ["/desk/exports/1.jsonl", "/web/one.jsonl"])
def test_a_request_is_repeated_after_a_failure(storage: FileServer, tmp_path: Path, mood: str, place: str) -> None:
    storage.put("/web/one.jsonl", rows(70, 71, 72))
    storage.moods[place] = [mood, mood]
    if mood.isdigit():
        storage.moods["/desk/"] = [mood]
    found = tickets(sync(source(storage, PATTERN, "/web/one.jsonl"), tmp_path))
    assert sorted(found) == sorted([*(f"t{n}" for n in range(10)), "t70", "t71", "t72"])
    ranges = [each.headers.get("range") for each in storage.requests if each.path == place]
    assert any(ranges) == (mood in ("half", "changed"))
    if mood == "half":  # the first half is not requested again
        assert storage.requests[-1].headers.get("if-match", storage.etag(place)) == storage.etag(place)
        assert [each.status for each in storage.requests if each.path == place] == [200, 206, 206]


def test_a_lasting_failure_is_reported_and_the_last_snapshot_stays(storage: FileServer, tmp_path: Path) -> None:
    storage.put("/web/one.jsonl", rows(70))
    spec = source(storage, "/web/one.jsonl", PATTERN)
    sync(spec, tmp_path)
    before = fingerprint(spec, tmp_path)
    storage.put("/web/one.jsonl", rows(71))
    failures = {"to https://[::1": "TG0714", "to https://h.example:99999/": "TG0714",
            "500": "TG0714.*status 500", "changed": "TG0714", "401": "TG0707", "418": "TG0714.*418", "half": "TG0714",
            "no length": "TG0714.*without a length", "wait 9000": "TG0714.*429",
            "to /web/one.jsonl": "TG0714.*redirects",
            }  # fmt: skip
    for mood, wanted in failures.items():
        storage.forever["/web/one.jsonl"] = mood
        if mood == "half":
            storage.has_etags = False
        with pytest.raises(ServiceError, match=f"(?s){wanted}"):
            ingest_source(spec, root=tmp_path, landed=tmp_path / "landed")
        assert fingerprint(spec, tmp_path) == before
    assert sorted(tickets(extract(spec, tmp_path)))[-1] == "t9"
    assert not list(folder_of(spec, tmp_path).glob("part-*"))


def test_a_retry_after_is_waited_for_in_seconds_or_until_a_date() -> None:
    now = datetime(2026, 6, 1, tzinfo=UTC)
    later = (now + timedelta(seconds=90)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    assert web.retry_after(later, now=now) == 90
    assert web.retry_after("Mon, 01 Jun 2020 00:00:00 GMT", now=now) == 0
    waited: list[float] = []
    client = web.Web(sleep=waited.append)
    client.wait(0, web.PassingError("status 429", 17.0), where="here")
    client.wait(2, web.PassingError("status 500"), where="here")
    assert waited == [17.0, web.FIRST_DELAY_S * 4]


def test_a_url_without_a_file_is_an_error_and_one_that_vanishes_leaves_with_its_rows(
    storage: FileServer, tmp_path: Path
) -> None:
    storage.put("/web/one.jsonl", rows(70))
    storage.forever["/lost/"] = "404"
    for url in ("/web/none.jsonl", "s3://desk/none/*.jsonl", "s3://desk/none.jsonl", "s3://lost/*"):
        with pytest.raises(DataError, match="TG0270"):
            sync(source(storage, url), tmp_path / "none")
    spec = source(storage, "/web/one.jsonl", PATTERN)
    sync(spec, tmp_path)
    del storage.files["/web/one.jsonl"], storage.files["/desk/exports/0.jsonl"]
    found = tickets(sync(spec, tmp_path))
    assert sorted(found) == [f"t{n}" for n in range(2, 10)]
    here = ingested(spec, landed=tmp_path / "landed")
    assert here is not None
    assert (here.n_rows, here.n_gone, here.unit) == (6, 2, "files")
    sync(spec, tmp_path)  # a file that is named is reported as gone while it is named
    here = ingested(spec, landed=tmp_path / "landed")
    assert here is not None
    assert here.n_gone == 1
    storage.put("/web/one.jsonl", rows(70))
    assert "t70" in tickets(sync(spec, tmp_path))
    storage.files.clear()
    with pytest.raises(DataError, match="TG0270"):
        sync(spec, tmp_path)


def test_with_other_urls_nothing_counts_as_brought_in_and_nothing_is_fetched_twice(
    storage: FileServer, tmp_path: Path
) -> None:
    sync(source(storage), tmp_path)
    wider = source(storage, PATTERN, "s3://desk/other.jsonl")
    assert ingested(wider, landed=tmp_path / "landed") is None
    with pytest.raises(DataError, match="TG0270"):
        extract(wider, tmp_path)
    storage.put("/desk/other.jsonl", rows(80))
    storage.requests = []
    assert len(tickets(sync(wider, tmp_path))) == 11
    assert [each.path for each in storage.requests if not each.query] == ["/desk/other.jsonl"]


def test_the_declared_sha256_must_hold(storage: FileServer, tmp_path: Path) -> None:
    url = "s3://desk/exports/1.jsonl"
    true = hashlib.sha256(storage.files["/desk/exports/1.jsonl"]).hexdigest()
    sync(source(storage, sha256={url: true}), tmp_path)
    for folder in (tmp_path, tmp_path / "fresh"):  # also of a file that is here already
        with pytest.raises(DataError, match="TG0270"):
            sync(source(storage, sha256={url: "0" * 64}), folder)
    del storage.files["/desk/exports/1.jsonl"]
    with pytest.raises(DataError, match=r"TG0270.*gone"):
        sync(source(storage, sha256={url: true}), tmp_path)


def test_more_than_may_come_is_refused_before_it_fills_the_disk(storage: FileServer, tmp_path: Path) -> None:
    storage.put("/desk/big/0.jsonl", b"x" * 700_000)
    storage.put("/desk/big/1.jsonl", b"x" * 700_000)
    with pytest.raises(DataError, match="TG0270"):
        sync(source(storage, "s3://desk/big/*", max_total_mb=1), tmp_path)
    storage.forever["/desk/big/0.jsonl"] = "endless"
    with pytest.raises(DataError, match="TG0270"):
        sync(source(storage, "s3://desk/big/0.jsonl", max_total_mb=1), tmp_path / "endless")
    with pytest.raises(DataError, match=r"TG0270.*more than 3 files"):
        sync(source(storage, max_files=3), tmp_path)
    assert not list((folder_of(source(storage), tmp_path / "endless") / FILES).iterdir())


def test_a_damaged_or_lost_copy_is_fetched_anew(storage: FileServer, tmp_path: Path) -> None:
    spec = source(storage)
    sync(spec, tmp_path)
    damaged, lost, *_ = sorted((folder_of(spec, tmp_path) / FILES).iterdir())
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    lost.unlink()
    with pytest.raises(DataError, match="TG0270"):
        extract(spec, tmp_path)
    storage.requests = []
    assert len(tickets(sync(spec, tmp_path))) == 10
    assert sum(each.status == 200 and not each.query for each in storage.requests) == 2


def test_a_file_that_the_server_packs_on_the_way_is_read_as_what_it_is(storage: FileServer, tmp_path: Path) -> None:
    storage.put("/web/one.jsonl", gzip.compress(rows(1, 2).encode()))
    storage.headers["/web/one.jsonl"] = {"Content-Encoding": "gzip"}
    assert len(tickets(sync(source(storage, "/web/one.jsonl"), tmp_path))) == 2
    storage.headers["/web/one.jsonl"] = {"Content-Encoding": "br"}
    with pytest.raises(ServiceError, match=r"TG0714.*'br'"):
        sync(source(storage, "/web/one.jsonl"), tmp_path / "other")


@pytest.mark.parametrize(
    "to", ["file:///etc/passwd", "http://example.com/x", "ftp://127.0.0.1/x", "https://a:b@h.example/"]
)
def test_a_redirect_to_another_scheme_is_refused(storage: FileServer, tmp_path: Path, to: str) -> None:
    storage.moods["/web/one.jsonl"] = [f"to {to}"]
    with pytest.raises(SecurityError, match="TG0829"):
        sync(source(storage, "/web/one.jsonl"), tmp_path)


@pytest.mark.parametrize(
    "to",
    ["https://127.0.0.1/x", "https://[::1]/", "https://10.0.0.7/x", "https://169.254.169.254/", "https://localhost/x"],
)
def test_a_redirect_from_outside_to_inside_is_refused(to: str) -> None:
    with pytest.raises(SecurityError, match="TG0829"):
        web.check_redirect("https://8.8.8.8/one.csv", to, where="u")
    assert web.check_redirect("https://8.8.8.8/one.csv", "https://9.9.9.9/x", where="u") == "https://9.9.9.9/x"
    assert web.check_redirect("https://8.8.8.8/one.csv", "two.csv", where="u") == "https://8.8.8.8/two.csv"
    with pytest.raises(ServiceError, match=r"TG0714.*not an address"):
        web.check_redirect("https://8.8.8.8/one.csv", "https://[::1", where="u")


def test_a_harmless_redirect_is_followed_and_another_host_is_not_told_the_token(
    storage: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FILES_TOKEN", "t0ken-of-tests")
    with file_server() as other:
        other.put("/there.jsonl", rows(1))
        storage.forever["/web/one.jsonl"] = f"to {other.url}/there.jsonl"
        storage.put("/web/two.jsonl", rows(2))
        spec = source(storage, "/web/one.jsonl", "/web/two.jsonl", bearer_token="${env:FILES_TOKEN}")
        assert sorted(tickets(sync(spec, tmp_path))) == ["t1", "t2"]
        assert all(each.headers["authorization"] == "Bearer t0ken-of-tests" for each in storage.requests)
        assert all("authorization" not in each.headers for each in other.requests)
    for path in filter(Path.is_file, tmp_path.rglob("*")):
        assert b"t0ken-of-tests" not in path.read_bytes(), path


def test_the_storage_redirects_nobody(storage: FileServer, tmp_path: Path) -> None:
    storage.forever["/desk/exports/1.jsonl"] = "301"
    storage.headers["/desk/exports/1.jsonl"] = {}
    with pytest.raises(ServiceError, match=r"TG0714.*status 301"):
        sync(source(storage), tmp_path)


def test_a_redirect_of_the_storage_is_not_followed_and_no_key_leaves(
    storage: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("S3_ID", KEY_ID), ("S3_SECRET", SECRET), ("S3_SESSION", "session-of-tests")):
        monkeypatch.setenv(name, value)
    keys = {
        "access_key_id": "${env:S3_ID}",
        "secret_access_key": "${env:S3_SECRET}",
        "session_token": "${env:S3_SESSION}",
    }
    with file_server() as other:
        other.put("/there.jsonl", rows(1))
        for place in ("/desk/exports/1.jsonl", "/desk/"):  # an object, and the listing
            storage.forever = {place: f"to {other.url}/there.jsonl"}
            with pytest.raises(ServiceError, match=r"TG0714.*status 302"):
                sync(source(storage, **keys), tmp_path)
        assert other.requests == []


def test_requests_are_signed_as_the_storage_checks_it_and_the_secret_is_nowhere(
    storage: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.secret = SECRET
    storage.put("/desk/exports/a b+%41ü.jsonl", rows(50))
    with pytest.raises(ServiceError, match="TG0707"):
        sync(source(storage), tmp_path / "anonymous")
    monkeypatch.setenv("S3_ID", KEY_ID)
    monkeypatch.setenv("S3_SECRET", SECRET)
    monkeypatch.setenv("S3_SESSION", "session-of-tests")
    keys = {"access_key_id": "${env:S3_ID}", "secret_access_key": "${env:S3_SECRET}"}
    spec = source(storage, **keys, session_token="${env:S3_SESSION}")
    assert len(tickets(sync(spec, tmp_path))) == 11
    assert storage.requests[-1].headers["x-amz-security-token"] == "session-of-tests"
    for path in filter(Path.is_file, tmp_path.rglob("*")):
        assert not any(word in path.read_bytes() for word in (SECRET.encode(), b"session-of-tests")), path
    monkeypatch.setenv("S3_SECRET", "wrong")
    with pytest.raises(ServiceError, match="TG0707") as refused:
        sync(spec, tmp_path)
    assert "wrong" not in str(refused.value).replace("wrong_", "")


@pytest.mark.parametrize(
    ("query", "signature"),
    [
        ("lifecycle=", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        ("max-keys=2&prefix=J", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
    ],
)
def test_signatures_are_those_of_the_examples_in_the_specification(query: str, signature: str) -> None:
    headers = signed_headers(
        host="examplebucket.s3.amazonaws.com", path="/", query=query, region="us-east-1",
        credentials=Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
        now=datetime(2013, 5, 24, tzinfo=UTC),
    )  # fmt: skip
    assert headers["authorization"].endswith(f"Signature={signature}")


def test_a_large_file_passes_through_little_memory(storage: FileServer, tmp_path: Path) -> None:
    storage.put("/web/one.jsonl", b"\n" * (48 << 20))
    storage.moods["/web/one.jsonl"] = ["half"]
    spec = source(storage, "/web/one.jsonl")
    warm = source(storage)
    ingest_source(warm, root=tmp_path, landed=tmp_path / "warm")
    tracemalloc.start()
    try:
        ingest_source(spec, root=tmp_path, landed=tmp_path / "landed")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    snapshot = read_snapshot(folder_of(spec, tmp_path))
    assert snapshot is not None
    assert snapshot.copies[0].size == 48 << 20
    assert peak < (6 << 20)


def test_two_processes_do_not_bring_in_the_same_files_at_once(storage: FileServer, tmp_path: Path) -> None:
    spec = source(storage)
    with locked(folder_of(spec, tmp_path)), pytest.raises(LockedError, match="TG0520"):
        ingest_source(spec, root=tmp_path, landed=tmp_path / "landed")
