"""Files from S3-compatible storage and web servers: complete and once each, whatever the server or machine does."""

import os
import signal
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.errors import ServiceError
from tasks.sources.copies import FETCHED, FILES
from tasks.sources.registry import ingested
from tests.support.file_server import KEY_ID, SECRET, FileServer, file_server
from tests.support.ingest_process import Ingests
from tests.support.processes import wait_for
from tests.support.synced import extract, folder_of, sync, tickets
from tests.tasks.sources.test_remote_files import PATTERN, rows, source, storage


def test_the_fake_storage_works_with_the_client_of_aws(storage: FileServer) -> None:
    storage.secret = SECRET
    code = (
        "import sys; from pyarrow import fs\n"
        "s = fs.S3FileSystem(access_key=sys.argv[2], secret_key=sys.argv[3], region='us-east-1', scheme='http',\n"
        "                    endpoint_override=sys.argv[1], request_timeout=20, connect_timeout=5)\n"
        "for each in s.get_file_info(fs.FileSelector('desk/exports')):\n"
        "    print(each.path, s.open_input_stream(each.path).read().decode().count(chr(10)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, storage.url.removeprefix("http://"), KEY_ID, SECRET],
        check=True, capture_output=True, text=True,
        env={**os.environ, "AWS_EC2_METADATA_DISABLED": "true"},
    )  # fmt: skip
    assert done.stdout.splitlines() == [f"desk/exports/{number}.jsonl 2" for number in range(5)]


def test_certificates_are_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with file_server(tls=context) as server:
        server.put("/desk/exports/1.jsonl", rows(1))
        server.put("/web/one.jsonl", rows(2))
        spec = source(server, "/web/one.jsonl", PATTERN)
        with pytest.raises(ServiceError, match=r"TG0714.*certificate"):
            sync(spec, tmp_path)
        assert server.requests == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert sorted(tickets(sync(spec, tmp_path))) == ["t1", "t2"]


def test_after_a_kill_in_the_middle_of_a_body_the_half_is_not_used(
    storage: FileServer, tmp_path: Path, project: Path
) -> None:
    storage.forever["/desk/exports/3.jsonl"] = "stall"
    spec = source(storage, parallel=1)
    code = (
        "import sys; from pathlib import Path; from schemas.remote_source import RemoteFilesSource as Source\n"
        "from tasks.sources.registry import ingest_source\n"
        "ingest_source(Source.model_validate_json(sys.argv[1]), root=Path(), landed=Path(sys.argv[2]))\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, spec.model_dump_json(), str(tmp_path / "landed")],
        env={**os.environ, "PYTHONPATH": str(project)},
    )
    wait_for(lambda: storage.gets("/desk/exports/3.jsonl"))
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert [path.name for path in folder_of(spec, tmp_path).glob("part-*")] == [f"part-{child.pid}-3.tmp"]
    storage.forever.clear()
    assert sorted(tickets(sync(spec, tmp_path))) == [f"t{n}" for n in range(10)]
    assert [len(storage.gets(f"/desk/exports/{number}.jsonl")) for number in range(5)] == [1, 1, 1, 2, 1]
    assert not list(folder_of(spec, tmp_path).glob("part-*"))


PLACES = ("copies.part", "copies.fetched", "copies.renamed", "copies.noted")


@pytest.mark.parametrize("place", PLACES)
def test_after_kills_at_any_step_no_row_is_lost_or_doubled_and_no_complete_file_fetched_twice(
    storage: FileServer, tmp_path: Path, process: Ingests, place: str
) -> None:
    spec = source(storage, parallel=1)
    for _ in range(5):  # each time at another file; all earlier ones are complete and recorded
        assert not process.ingest(spec, tmp_path, place)
        if place != "copies.noted":
            assert not process.ingest(spec, tmp_path, "copies.noted")
    assert ingested(spec, landed=tmp_path / "landed") is None, "no round finished"
    with (folder_of(spec, tmp_path) / FETCHED).open("ab") as stream:
        stream.write(b'{"url": "half a li')
    assert process.ingest(spec, tmp_path)
    assert sorted(tickets(extract(spec, tmp_path))) == [f"t{n}" for n in range(10)]
    for number in range(5):
        n_gets = len(storage.gets(f"/desk/exports/{number}.jsonl"))
        assert n_gets == 1 if place == "copies.noted" else n_gets <= 2
    assert len(list((folder_of(spec, tmp_path) / FILES).iterdir())) == 5


def test_after_a_kill_with_a_new_snapshot_the_next_round_removes_old_copies(
    storage: FileServer, tmp_path: Path, process: Ingests
) -> None:
    spec = source(storage)
    assert process.ingest(spec, tmp_path)
    storage.put("/desk/exports/0.jsonl", rows(0, 1, text="changed"))
    del storage.files["/desk/exports/4.jsonl"]
    assert not process.ingest(spec, tmp_path, "copies.recorded")
    assert len(list((folder_of(spec, tmp_path) / FILES).iterdir())) == 6
    found = tickets(extract(spec, tmp_path))
    assert (sorted(found), found["t0"]["body"]) == ([f"t{n}" for n in range(8)], "changed 0")
    assert process.ingest(spec, tmp_path)
    assert len(list((folder_of(spec, tmp_path) / FILES).iterdir())) == 4
    assert sorted(tickets(extract(spec, tmp_path))) == [f"t{n}" for n in range(8)]
