"""A real Postgres as a source: pages by cursor and key, killed at every step, deletions found, nothing ever written."""

from typing import Any

import pytest

from schemas.errors import ConfigError
from schemas.remote_source import PostgresSource
from tasks.sources.registry import check_source

pytestmark = pytest.mark.server

VARIABLE = "HELPDESK_DSN"


def source(**options: Any) -> PostgresSource:
    declared: dict[str, Any] = {"table": "the % tickets", "key": ("id",), "cursor": "updated_at", "page_size": 10}
    if "query" in options:
        del declared["table"]
    return PostgresSource(
        kind="postgres", dsn=f"${{env:{VARIABLE}}}", columns={"ticket_id": "id"}, **{**declared, **options}
    )


def test_without_psycopg2_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"TG0112.*\n.*\n\nhint: make install"):
        check_source(source())
