"""Sources behind a connection as they are declared: credentials are references; the documentation's examples load."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML

from schemas.file_reading import FileReading
from schemas.load import PipelineFile
from schemas.remote_source import RemoteFilesSource, ZendeskSource
from schemas.secret import PATTERN, is_secret
from schemas.source import DuckDBSource, FilesSource, IcebergSource, SourceSpec

Load = Callable[..., PipelineFile]
Explain = Callable[..., str]

TEXT = """\
version: 1
pipelines:
  demo:
    source: {kind: zendesk, subdomain: acme, email: a@b.c, api_token: TOKEN, start: 2026-01-01}
    train: {base_model: m}
    gates: {rules: [{metric: exact, value_threshold: 0.5}]}
    register: {name: demo}
"""


def test_a_credential_stays_a_reference_and_its_variable_must_be_set(load: Load, explain: Explain) -> None:
    text = TEXT.replace("TOKEN", '"${env:DESK}"')
    spec = load(text, {"DESK": "s3cret"}).get("demo")
    assert "s3cret" not in spec.model_dump_json()
    assert isinstance(spec.source, ZendeskSource)
    assert spec.source.api_token == "${env:DESK}"
    message = explain(text, {})
    assert "environment variable DESK is not set, needed by `pipelines.demo.source.api_token`" in message
    assert "default" not in message


@pytest.mark.parametrize("written", ["s3cret", '"${env:DESK:-s3cret}"', '"x${env:DESK}"', '"${DESK}"'])
def test_anything_else_is_no_credential(explain: Explain, written: str) -> None:
    message = explain(TEXT.replace("TOKEN", written), {"DESK": "s3cret"})
    assert "a credential is written as `${env:NAME}` and nothing else" in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_url": "https://x.example"}, "exactly one of `subdomain` and `base_url`"),
        ({"oauth_token": "${env:A}"}, "exactly one of `api_token` and `oauth_token`"),
        ({"email": None}, "`email` and `api_token` need each other"),
        ({"subdomain": None, "base_url": "http://desk.example"}, "is not an https address"),
        ({"subdomain": None, "base_url": "https://a:b@desk.example"}, "more than scheme, host and port"),
        ({"start": "2026-02-30"}, "not a calendar day"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_refused(changes: dict[str, object], message: str) -> None:
    whole = {"kind": "zendesk", "subdomain": "acme", "email": "a@b.c", "api_token": "${env:A}", "start": "2026-01-01"}
    assert ZendeskSource.model_validate(whole).address == "https://acme.zendesk.com"
    with pytest.raises(ValidationError, match=message):
        ZendeskSource.model_validate({**whole, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": None}, "exactly one of `path` and `catalog`"),
        ({"catalog": "c.db", "table": "a.b"}, "exactly one of `path` and `catalog`"),
        ({"table": "a.b"}, "`table` and `catalog` need each other"),
        ({"path": None, "catalog": "c.db"}, "`table` and `catalog` need each other"),
        ({"path": None, "catalog": "c.db", "table": "b"}, "table"),
        ({"snapshot_id": -1}, "snapshot_id"),
    ],
)
def test_an_iceberg_table_is_declared_by_its_path_or_its_catalog(changes: dict[str, object], message: str) -> None:
    whole = {"kind": "iceberg", "path": "lake/tickets"}
    assert IcebergSource.model_validate(whole).snapshot_id is None
    with pytest.raises(ValidationError, match=message):
        IcebergSource.model_validate({**whole, **changes})


def test_a_ducklake_is_refused_with_what_works() -> None:
    with pytest.raises(ValidationError, match=r"DuckLake is not read.*COPY \(FROM lake.tickets AT"):
        DuckDBSource(kind="duckdb", database="ducklake:lake.ducklake", table="tickets")


AFAR = {"kind": "remote_files", "urls": ["s3://desk/*.csv", "https://h.example/x.csv?download=1"]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"urls": []}, "urls"),
        *(
            ({"urls": [url]}, "starts neither with s3:// nor with https://")
            for url in ("http://h.example/x.csv", "ftp://h.example/x.csv", "file:///etc/passwd", "x.csv", "gs://b/x.csv")
        ),
        *(({"urls": [url]}, "is not `s3://bucket/key`") for url in ("s3://desk", "s3://desk/", "s3://*/x", "s3://d/x/")),
        ({"urls": ["https://a:b@h.example/x.csv"]}, "not an address of a file"),
        ({"urls": ["https://h.example/"]}, "not an address of a file"),
        ({"urls": ["https://h.example:99999/x.csv"]}, "[Pp]ort"),
        ({"urls": ["https://[::1/x.csv"]}, "IPv6"),
        ({"urls": ["https://h.example/x.csv?X-Amz-Signature=0a"]}, "has a credential"),
        ({"urls": ["https://h.example/x.csv?sig=0a"]}, "has a credential"),
        ({"urls": ["https://h.example/*.csv"]}, "only s3:// can have patterns"),
        ({"urls": ["s3://desk/a b.csv"]}, "blanks"),
        ({"endpoint": "http://minio.example"}, "is not an https address"),
        ({"endpoint": "https://minio.example/path"}, "more than scheme, host and port"),
        ({"access_key_id": "AKIA", "secret_access_key": "x"}, "credential is written as"),
        ({"access_key_id": "${env:A}"}, "give both"),
        ({"session_token": "${env:A}"}, "needs `access_key_id`"),
        ({"profile": "a", "access_key_id": "${env:A}", "secret_access_key": "${env:A}"}, "not both"),
        ({"profile": "a]\n[b"}, "profile"),
        ({"parallel": 0}, "parallel"),
        ({"parallel": 33}, "parallel"),
        ({"bearer_token": "${env:A}", "urls": ["s3://desk/x.csv"]}, "of one host; there are 0"),
        ({"bearer_token": "${env:A}", "urls": ["https://a.example/x", "https://b.example/x"]}, "there are 2"),
        ({"sha256": {"https://h.example/y.csv": "0" * 64}}, "not in `urls`"),
        ({"sha256": {"s3://desk/x.csv": "00"}}, "sha256"),
        ({"max_total_mb": 0}, "max_total_mb"),
    ],
)  # fmt: skip
def test_remote_files_have_safe_addresses(changes: dict[str, object], message: str) -> None:
    whole = RemoteFilesSource.model_validate({**AFAR, "sha256": {"s3://desk/x.csv": "0" * 64}})
    assert whole.model_dump()["sha256"] == {"s3://desk/x.csv": "0" * 64}
    with pytest.raises(ValidationError, match=message):
        RemoteFilesSource.model_validate({**AFAR, **changes})


def test_what_files_have_in_common_is_declared_once() -> None:
    shared = {"format", "shape", "columns", "extra_columns"}
    for kind in (FilesSource, RemoteFilesSource):
        assert issubclass(kind, FileReading)
        assert shared.isdisjoint(kind.__annotations__)


def test_a_wrong_scheme_and_a_written_credential_are_reported_with_codes_and_lines(explain: Explain) -> None:
    declared = "{kind: remote_files, urls: [CHANGE], access_key_id: '${env:A}', secret_access_key: SECRET}"
    text = re.sub(r"\{kind: zendesk.*\}", declared, TEXT)
    wrong = explain(text.replace("CHANGE", "ftp://h.example/x").replace("SECRET", "'${env:A}'"), {"A": "AKIAX"})
    assert "TG0103" in wrong
    assert "starts neither with s3:// nor with https://" in wrong
    written = explain(text.replace("CHANGE", "s3://desk/x.csv").replace("SECRET", "hunter2"), {"A": "AKIAX"})
    assert "TG0103" in written
    assert "a credential is written as `${env:NAME}` and nothing else" in written
    assert "TG0106" in explain(text.replace("CHANGE", "s3://desk/x.csv").replace("SECRET", "'${env:A}'"), {})


def test_the_examples_of_the_documentation_are_valid(project: Path) -> None:
    blocks = (project / "docs" / "how-to" / "connect-a-source.md").read_text().split("```yaml\n")[1:]
    kinds = []
    for block in blocks:
        document = YAML(typ="safe").load(block.partition("```")[0])
        declared = {**document["source"]}
        if "start" in declared:
            declared["start"] = str(declared["start"])
        kinds.append(TypeAdapter(SourceSpec).validate_python(declared).kind)
    assert kinds == ["zendesk", "duckdb", "postgres", "remote_files", "duckdb", "sqlite", "iceberg"]


def test_every_credential_of_a_source_stays_the_reference_that_it_is_written_as() -> None:
    schema = TypeAdapter(SourceSpec).json_schema()
    found = {
        name
        for definition in schema["$defs"].values()
        for name, field in definition.get("properties", {}).items()
        if any(PATTERN in form.get("pattern", "") for form in (field, *field.get("anyOf", ())))
    }
    assert found == {
        "api_token", "oauth_token", "dsn", "access_key_id", "secret_access_key", "session_token", "bearer_token",
    }  # fmt: skip
    assert all(is_secret(f"pipelines.replies.source.{name}") for name in found)
