"""Sources behind a connection as they are declared: credentials are references; the documentation's examples load."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML

from schemas.load import PipelineFile
from schemas.remote_source import FreshdeskSource, ZendeskSource
from schemas.secret import PATTERN, is_secret
from schemas.source import SourceSpec

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
    told = explain(text, {})
    assert "environment variable DESK is not set, needed by `pipelines.demo.source.api_token`" in told
    assert "default" not in told


@pytest.mark.parametrize("written", ["s3cret", '"${env:DESK:-s3cret}"', '"x${env:DESK}"', '"${DESK}"'])
def test_anything_else_is_no_credential(explain: Explain, written: str) -> None:
    told = explain(TEXT.replace("TOKEN", written), {"DESK": "s3cret"})
    assert "a credential is written as `${env:NAME}` and nothing else" in told


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"base_url": "https://x.example"}, "exactly one of `subdomain` and `base_url`"),
        ({"oauth_token": "${env:A}"}, "exactly one of `api_token` and `oauth_token`"),
        ({"email": None}, "`email` goes with `api_token`"),
        ({"subdomain": None, "base_url": "http://desk.example"}, "is no https address"),
        ({"subdomain": None, "base_url": "https://a:b@desk.example"}, "more than scheme, host and port"),
        ({"start": "2026-02-30"}, "no day of the calendar"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_refused(changes: dict[str, object], told: str) -> None:
    whole = {"kind": "zendesk", "subdomain": "acme", "email": "a@b.c", "api_token": "${env:A}", "start": "2026-01-01"}
    assert ZendeskSource.model_validate(whole).address == "https://acme.zendesk.com"
    with pytest.raises(ValidationError, match=told):
        ZendeskSource.model_validate({**whole, **changes})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"subdomain": None}, "exactly one of `subdomain` and `base_url`"),
        ({"subdomain": None, "base_url": "http://acme.example"}, "no https address"),
        ({"api_key": "s3cret"}, "env:"),
        ({"statuses": ("solved",)}, "statuses"),
        ({"page_size": 101}, "page_size"),
    ],
)
def test_a_freshdesk_account_is_declared_as_it_is(changes: dict[str, object], told: str) -> None:
    whole = {"kind": "freshdesk", "subdomain": "acme", "api_key": "${env:A}", "start": "2026-01-01"}
    source = FreshdeskSource.model_validate(whole)
    assert (source.address, source.statuses) == ("https://acme.freshdesk.com", ("resolved", "closed"))
    with pytest.raises(ValidationError, match=told):
        FreshdeskSource.model_validate({**whole, **changes})


def test_the_examples_of_the_documentation_are_valid(project: Path) -> None:
    blocks = (project / "docs" / "sources.md").read_text().split("```yaml\n")[1:]
    kinds = []
    for block in blocks:
        document = YAML(typ="safe").load(block.partition("```")[0])
        declared = {**document["source"]}
        if "start" in declared:
            declared["start"] = str(declared["start"])
        kinds.append(TypeAdapter(SourceSpec).validate_python(declared).kind)
    assert kinds == ["zendesk", "freshdesk", "intercom", "postgres", "duckdb"]


def test_every_credential_of_a_source_stays_the_reference_that_it_is_written_as() -> None:
    schema = TypeAdapter(SourceSpec).json_schema()
    found = {
        name
        for definition in schema["$defs"].values()
        for name, field in definition.get("properties", {}).items()
        if any(PATTERN in form.get("pattern", "") for form in (field, *field.get("anyOf", ())))
    }
    assert found == {"api_token", "oauth_token", "access_token", "api_key", "dsn"}
    assert all(is_secret(f"pipelines.replies.source.{name}") for name in found)
