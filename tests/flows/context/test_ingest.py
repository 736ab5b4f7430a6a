"""Remote sources, by the real commands: rows deleted upstream are removed, and findings are reported."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from flows.cli.ops import doctor
from flows.cli.planning import plan, validate
from schemas.artifacts import ModelRef
from schemas.errors import ConfigError, SecurityError
from schemas.load import load_file
from tasks.sources.registry import ingest_source
from tests.support.file_server import KEY_ID, SECRET, file_server
from tests.support.workplace import Workplace, small_document
from tests.support.zendesk_desk import TOKEN, ZendeskDesk, zendesk_desk


@pytest.fixture
def desk() -> Iterator[ZendeskDesk]:
    with zendesk_desk() as desk:
        for number in range(1, 31):
            desk.add(number, " ".join(f"w{(number * 31 + k * k * 13) % 997}" for k in range(12)))
        yield desk


def zendesk(url: str) -> dict[str, Any]:
    return {
        "kind": "zendesk", "base_url": url, "email": "ada@example.com", "api_token": "${env:DESK_TOKEN}",
        "start": "2026-06-01", "requests_per_minute": 700, "columns": {"category": "fields.360001"},
    }  # fmt: skip


Ingest = Callable[[], object]


@pytest.fixture
def ingest(workplace: Workplace, desk: ZendeskDesk, monkeypatch: pytest.MonkeyPatch) -> Ingest:
    """Declare the help desk as the source; the returned function ingests it as a run does."""
    workplace.declare(lambda document: document["pipelines"]["small"].update(source=zendesk(desk.url)))
    workplace.environ["DESK_TOKEN"] = TOKEN
    monkeypatch.setenv("DESK_TOKEN", TOKEN)
    spec = load_file(workplace.folder / "pipelines.yaml").get("small")
    return lambda: ingest_source(spec.source, root=workplace.folder, landed=workplace.home / "ingest" / "small")


@pytest.mark.needs_extra("zendesk")
def test_a_ticket_deleted_upstream_is_removed_from_the_landing_to_the_warehouse(
    workplace: Workplace, desk: ZendeskDesk, ingest: Ingest
) -> None:
    ingest()
    text = desk.comments[7][0]["plain_body"]
    desk.touch(7, status="deleted", subject="SCRUBBED")

    curated = workplace.json("data", "curate", "small")
    first = curated["funnel"][0]
    assert (first["n_in"], first["n_out"], first["n_dropped"]) == (30, 29, 1)
    with duckdb.connect(curated["warehouse"], read_only=True) as client:
        assert client.sql("SELECT step, code FROM dropped WHERE ticket_id = '7'").fetchall() == [
            ("extract", "deleted_upstream")
        ]
        assert client.sql("SELECT count(*) FROM raw_tickets WHERE ticket_id = '7'").fetchall() == [(0,)]
    # No file contains the text or the token: ledger, keys and snapshots hold only the reference.
    for path in filter(Path.is_file, workplace.home.rglob("*")):
        content = path.read_bytes()
        assert text.encode() not in content, path
        assert TOKEN.encode() not in content, path


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("DESK_TOKEN", raising=False)
    monkeypatch.setenv("TUNEGATE_HOME", str(tmp_path / "home"))
    return tmp_path / "pipelines.yaml"


def declare(config: Path, source: dict[str, Any], model: str = "nowhere") -> None:
    document = small_document(model)
    document["pipelines"]["small"]["source"] = source
    config.write_text(json.dumps(document))


@pytest.mark.needs_extra("zendesk")
def test_validate_plan_and_doctor_describe_the_source_without_contacting_it(
    config: Path, tiny_model: ModelRef, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    declare(config, zendesk("https://desk.invalid"), str(tiny_model.root))
    with pytest.raises(ConfigError) as unset:
        validate(config=config, as_json=False)
    assert "environment variable DESK_TOKEN is not set" in str(unset.value)
    monkeypatch.setenv("DESK_TOKEN", TOKEN)
    assert validate(config=config, as_json=False) == 0
    assert plan(pipeline="small", config=config, as_json=True) == 0
    message = json.loads(capsys.readouterr().out.partition("\n")[2])["source"]
    assert message == "zendesk: nothing has been ingested yet; a plan contacts no service, the next run does"
    doctor(config=config, as_json=True)
    findings = {
        row["message"]: row for row in json.loads(capsys.readouterr().out)["findings"] if row["what"] == "source"
    }
    assert findings[f"small: {message}"]["state"] == "ok"
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match="TG0112"):
        validate(config=config, as_json=False)
    doctor(config=config, as_json=True)
    (bad, *_) = [row for row in json.loads(capsys.readouterr().out)["findings"] if row["what"] == "source"]
    assert (bad["state"], "zendesk" in bad["message"]) == ("bad", True)


def test_only_a_run_fetches_remote_files_and_a_plan_shows_what_is_ingested(
    config: Path, tiny_model: ModelRef, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FILES_TOKEN", TOKEN)
    with file_server() as remote:
        declared = {
            "kind": "remote_files", "urls": ["s3://desk/*.jsonl", f"{remote.url}/web/x.jsonl"], "endpoint": remote.url,
            "bearer_token": "${env:FILES_TOKEN}",
        }  # fmt: skip
        declare(config, declared, str(tiny_model.root))
        assert validate(config=config, as_json=False) == 0
        assert plan(pipeline="small", config=config, as_json=True) == 0
        doctor(config=config, as_json=True)
        assert remote.requests == []
        message = capsys.readouterr().out
        assert "remote_files: nothing has been ingested yet; a plan contacts no service, the next run does" in message
        remote.put("/desk/1.jsonl", '{"body": "q", "reply": "a"}\n')
        remote.put("/web/x.jsonl", '{"body": "q", "reply": "b"}\n')
        spec = load_file(config).get("small")
        ingest_source(spec.source, root=config.parent, landed=config.parent / "home" / "ingest" / "small")
        n_requests = len(remote.requests)
        capsys.readouterr()
        assert plan(pipeline="small", config=config, as_json=True) == 0
        assert "remote_files: 2 files ingested, as of" in capsys.readouterr().out
        assert len(remote.requests) == n_requests


@pytest.mark.needs_extra("iceberg")
def test_a_new_snapshot_of_an_iceberg_table_is_curated_without_its_deleted_rows(
    workplace: Workplace, tmp_path: Path
) -> None:
    from tests.support.iceberg_table import NAME, Lake

    lake = Lake(tmp_path / "lake")
    try:
        first = lake.append(range(30))
        declared = {"kind": "iceberg", "catalog": str(lake.database), "table": NAME, "columns": {"body": "question"}}
        workplace.declare(lambda document: document["pipelines"]["small"].update(source=declared))
        done = workplace.json("data", "curate", "small")["funnel"][0]
        assert (done["n_in"], done["n_out"]) == (30, 30)
        assert workplace.json("plan", "small")["steps"][0]["state"] == "reused"
        lake.delete_positions({first: [7]})
        assert workplace.json("plan", "small")["steps"][0]["state"] == "run"
        curated = workplace.json("data", "curate", "small")
        assert curated["funnel"][0]["n_in"] == 29
        with duckdb.connect(curated["warehouse"], read_only=True) as client:
            assert client.sql("SELECT count(*) FROM raw_tickets WHERE ticket_id = 't7'").fetchall() == [(0,)]
            sources = client.sql("SELECT DISTINCT source FROM raw_tickets").fetchall()
        assert sources == [(f"iceberg:{NAME}@{lake.snapshot_id}",)]
    finally:
        lake.close()


def test_a_file_removed_from_a_bucket_is_removed_with_its_rows(workplace: Workplace) -> None:
    with file_server() as remote:
        remote.secret = SECRET
        for name, numbers in {"a": range(20), "b": range(20, 30)}.items():
            rows = [{"ticket_id": n, "customer_id": n, "body": _words(n), "reply": f"so {_words(n)}"} for n in numbers]
            remote.put(f"/desk/{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        declared = {
            "kind": "remote_files", "urls": ["s3://desk/*.jsonl"], "endpoint": remote.url,
            "access_key_id": "${env:S3_ID}", "secret_access_key": "${env:S3_SECRET}",
        }  # fmt: skip
        workplace.declare(lambda document: document["pipelines"]["small"].update(source=declared))
        workplace.environ |= {"S3_ID": KEY_ID, "S3_SECRET": SECRET}
        first = workplace.json("data", "curate", "small")["funnel"][0]
        assert (first["n_in"], first["n_out"]) == (30, 30)
        del remote.files["/desk/b.jsonl"]
        done = workplace.run("data", "curate", "small")
        assert "remote_files: 2 files ingested, 1 of them deleted upstream" in done.stdout + done.stderr
        again = workplace.json("data", "curate", "small")["funnel"][0]
        assert (again["n_in"], again["n_out"]) == (20, 20)
        assert len(remote.gets("/desk/a.jsonl")) == 1
    for path in filter(Path.is_file, workplace.home.rglob("*")):
        assert SECRET.encode() not in path.read_bytes(), path


def _words(number: int) -> str:
    return " ".join(f"w{(number * 31 + k * k * 13) % 997}" for k in range(12))


@pytest.mark.needs_extra("postgres")
def test_validate_refuses_invalid_queries_for_postgres(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELPDESK_DSN", "postgresql://ada:hunter2@db.invalid/help")
    source = {"kind": "postgres", "dsn": "${env:HELPDESK_DSN}", "key": ["id"], "cursor": "updated_at"}
    declare(config, {**source, "query": "delete from tickets"})
    with pytest.raises(SecurityError, match="TG0811"):
        validate(config=config, as_json=False)
    declare(config, {**source, "table": "tickets", "dsn": "postgresql://ada:hunter2@db.invalid/help"})
    with pytest.raises(ConfigError, match="a credential is written as") as literal:
        validate(config=config, as_json=False)
    assert "dsn" in str(literal.value)


@pytest.mark.needs_extra("zendesk")
def test_a_run_as_of_a_day_ingests_nothing_and_needs_a_source_that_was_ingested_after_it(
    workplace: Workplace, desk: ZendeskDesk, ingest: Ingest
) -> None:
    as_of = ("run", "small", "--until", "curate", "--as-of", "2026-07-12")
    refused = workplace.run(*as_of)
    assert (refused.returncode, "TG0159" in refused.stderr) == (2, True), refused.stderr
    assert "nothing is ingested yet" in refused.stderr
    ingest()
    cursor = {path: path.read_bytes() for path in (workplace.home / "ingest").rglob("*") if path.is_file()}
    desk.add(31, "a ticket of later")
    done = workplace.run(*as_of)
    assert "not ingested again with --as-of" in " ".join(done.stderr.split()), done.stderr
    assert {path: path.read_bytes() for path in (workplace.home / "ingest").rglob("*") if path.is_file()} == cursor
