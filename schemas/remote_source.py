"""Remote sources, Zendesk and Postgres. Part of `source` (`schemas/source.py`).

Their rows are first ingested into a file, `ingest.duckdb`, and read from there.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from schemas.columns import Shape, TicketColumn
from schemas.file_reading import Source
from schemas.secret import Secret

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def is_an_address(value: str | None) -> str | None:
    """Refuse an address that is not scheme, host and port of https, or of http on this machine."""
    parts = urlsplit(value or "https://unset")
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
        raise ValueError("is not an https address (http only on this machine)")
    if not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("has more than scheme, host and port")
    return value


def is_a_day(value: str) -> str:
    """Refuse a text that is not a calendar day."""
    try:
        datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(f"{value} is not a calendar day") from None
    return value


class ZendeskSource(Source):
    """Tickets and comments of a Zendesk account, by its incremental export; the extra `zendesk`."""

    kind: Literal["zendesk"]
    subdomain: str | None = Field(default=None, pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    """`acme` for acme.zendesk.com; exactly one of `subdomain` and `base_url`."""
    base_url: str | None = None
    """Scheme and host of another address; https, or http on this machine."""
    email: str | None = None
    """Address of the agent with the `api_token`."""
    api_token: Secret | None = None
    """`${env:NAME}`; with `email`. Exactly one of `api_token` and `oauth_token`."""
    oauth_token: Secret | None = None
    """`${env:NAME}`."""
    start: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    """Tickets that changed on this day, UTC, or later."""
    statuses: tuple[Literal["new", "open", "pending", "hold", "solved", "closed"], ...] = Field(
        default=("solved", "closed"), min_length=1
    )
    """Tickets of other statuses are dropped as `other_status`, and their comments are not fetched."""
    reply: Literal["last", "first", "longest"] = "last"
    """Which public comment of an agent is the reply."""
    page_size: int = Field(default=1000, ge=1, le=1000)
    """Tickets per page of the export."""
    requests_per_minute: int = Field(default=10, ge=1, le=700)
    """Pages of the export to request per minute; Zendesk's limit is 10, or 30 with an add-on."""
    columns: dict[TicketColumn, str] = Field(default={})
    """Ticket column -> what it is read from; `fields.NAME` is a custom field (docs/how-to/connect-a-source.md)."""

    _address = field_validator("base_url")(is_an_address)
    _day = field_validator("start")(is_a_day)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.subdomain is None) == (self.base_url is None):
            raise ValueError("give exactly one of `subdomain` and `base_url`")
        if (self.api_token is None) == (self.oauth_token is None):
            raise ValueError("give exactly one of `api_token` and `oauth_token`")
        if (self.api_token is None) != (self.email is None):
            raise ValueError("`email` and `api_token` need each other")
        return self

    @property
    def address(self) -> str:
        """The base address, without a final slash."""
        return (self.base_url or f"https://{self.subdomain}.zendesk.com").rstrip("/")

    @property
    def start_time(self) -> int:
        """Seconds since 1970."""
        return int(datetime.fromisoformat(self.start).replace(tzinfo=UTC).timestamp())


class PostgresSource(Source):
    """A table, or one SELECT, of a Postgres database, read-only and incrementally by a cursor column; the extra
    `postgres`."""

    kind: Literal["postgres"]
    dsn: Secret
    """`${env:NAME}`; the variable has `postgresql://user:password@host:5432/database`."""
    table: str | None = None
    """`table` or `schema.table`."""
    query: str | None = None
    """One SELECT statement in Postgres' dialect; exactly one of `table` and `query`."""
    key: tuple[str, ...] = Field(min_length=1, max_length=8)
    """Columns that identify a row: together unique and never null."""
    cursor: str
    """Column that grows whenever a row is written, such as `updated_at`."""
    page_size: int = Field(default=5000, ge=1, le=100_000)
    """Rows to fetch and store at a time."""
    overlap_s: int = Field(default=120, ge=0, le=86_400)
    """For a cursor that is a time: seconds before its maximum to read again, for rows whose transaction ended late."""
    statement_timeout_s: int = Field(default=300, ge=1, le=86_400)
    """The server cancels a statement that runs longer."""
    deletions: Literal["compare", "ignore"] = "compare"
    """`compare` reads all keys after each sync: missing rows become `deleted_upstream`, and rows that the cursor
    missed are fetched."""
    shape: Shape = "auto"
    """As for `kind: files`."""
    columns: dict[TicketColumn, str] = Field(default={})
    """Ticket column -> column of the table or query, or a path into it, as for `kind: files`."""
    extra_columns: Literal["ignore", "error"] = "ignore"
    """What to do with columns that are neither ticket columns nor mapped."""

    @model_validator(mode="after")
    def _one_of(self) -> PostgresSource:
        if (self.table is None) == (self.query is None):
            raise ValueError("give exactly one of `table` and `query`")
        if len(set(self.key)) < len(self.key):
            raise ValueError("`key` has a column twice")
        return self
