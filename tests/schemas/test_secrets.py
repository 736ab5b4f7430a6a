"""Secrets of the environment: known by name or form, and gone from every text that is shown or kept."""

import json
import os
from pathlib import Path

import pytest

from schemas import secrets
from schemas.errors import ServiceError
from schemas.load import load_file
from schemas.secrets import is_secret, know_secrets, masked, masked_value, unmasked, without_secrets

VALUE = 'pa"ss\\w/örd 1'


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test begins with no secret known and leaves none behind."""
    # Private: what a process knows as a secret it never forgets.
    monkeypatch.setattr(secrets, "_known", {})
    monkeypatch.setattr(secrets, "_pattern", None)


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("HF_TOKEN", "x", True),
        ("MLFLOW_TRACKING_PASSWORD", "x", True),
        ("PREFECT_API_AUTH_STRING", "x", True),
        ("AWS_SECRET_ACCESS_KEY", "x", True),
        ("SLACK_WEBHOOK", "x", True),
        ("DATABASE_URL", "postgresql://me:hush@db/x", True),
        ("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000", False),
        ("TOKENIZERS_PARALLELISM", "false", False),
        ("SSH_AUTH_SOCK", "/run/agent", False),
        ("TUNEGATE_HOME", "/srv/state", False),
        ("KEYBOARD", "us", False),
    ],
)
def test_a_secret_is_recognised_by_its_name_or_by_a_password_in_its_address(
    name: str, value: str, secret: bool
) -> None:
    assert is_secret(name, value) is secret


@pytest.mark.parametrize("write", [str, json.dumps, repr, lambda text: json.dumps(text, ensure_ascii=False)])
def test_a_secret_is_hidden_in_whatever_form_it_is_written(write: object) -> None:
    know_secrets({"MY_TOKEN": VALUE})
    message = masked(f"before {write(VALUE)} after")  # type: ignore[operator]
    assert "${env:MY_TOKEN}" in message
    assert "ss" not in message.replace("before", "")


def test_of_two_secrets_the_longer_one_goes_first() -> None:
    know_secrets({"SHORT_KEY": "hunter22", "LONG_KEY": "hunter22hunter33"})
    assert masked("hunter22hunter33 hunter22") == "${env:LONG_KEY} ${env:SHORT_KEY}"


def test_the_password_of_an_address_is_hidden_alone_as_well() -> None:
    know_secrets({"DATABASE_URL": "postgresql://me:correct-horse@db/x"})
    assert masked("postgresql://me:correct-horse@db/x") == "${env:DATABASE_URL}"
    assert masked("login of me with correct-horse failed") == "login of me with *** failed"


def test_a_value_too_short_to_be_distinguished_from_text_is_left() -> None:
    know_secrets({"A_TOKEN": "1", "B_TOKEN": "", "C_TOKEN": "abcde"})
    assert masked("1 abcde") == "1 abcde"


def test_an_error_holds_no_secret_in_any_of_its_parts() -> None:
    know_secrets({"MY_TOKEN": "tell-nobody"})
    error = ServiceError("m tell-nobody", code="TG0710", where="w tell-nobody", hint="h tell-nobody")
    assert "tell-nobody" not in f"{error}{error.to_json()}{error.args}{error!r}"


def test_values_in_any_depth_are_masked_and_references_are_resolved_again() -> None:
    know_secrets({"URI_PASSWORD": "tell-nobody"})
    kept = masked_value({"a": ["x tell-nobody", 1, None, {"tell-nobody": True}]})
    assert kept == {"a": ["x ${env:URI_PASSWORD}", 1, None, {"${env:URI_PASSWORD}": True}]}
    assert unmasked(kept["a"][0], {"URI_PASSWORD": "tell-nobody"}) == "x tell-nobody"
    assert unmasked("${env:GONE}", {}) == "${env:GONE}"


def test_a_process_that_needs_no_secret_gets_none() -> None:
    environ = {"PATH": "/bin", "HF_TOKEN": "x", "DB": "pg://a:b@c/d", "OMP_NUM_THREADS": "1"}
    assert without_secrets(environ) == {"PATH": "/bin", "OMP_NUM_THREADS": "1"}


def test_variables_that_a_pipeline_names_as_secrets_are_known_whatever_their_name(
    tmp_path: Path, project: Path
) -> None:
    (tmp_path / "pipelines.yaml").write_text(
        (project / "pipelines.yaml")
        .read_text()
        .replace("    register:", "    notify: {webhook_env: CHANNEL, on: [BLOCK]}\n    register:", 1)
    )
    load_file(tmp_path / "pipelines.yaml", environ={**os.environ, "CHANNEL": "https://hooks.example/T0/B1/x9"})
    assert masked("POST https://hooks.example/T0/B1/x9") == "POST ${env:CHANNEL}"
