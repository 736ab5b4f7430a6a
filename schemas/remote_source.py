"""Sources that are asked over a connection: help desks and Postgres. Part of `source` (`schemas/source.py`).

What they hold is first brought into an own file, `ingest.duckdb`, and read from there.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, field_validator, model_validator

from schemas.columns import Shape, TicketColumn
from schemas.secret import Secret
from schemas.spec import Spec

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def is_an_address(value: str | None) -> str | None:
    """Refuse what is more than scheme, host and port of https, or of http on this machine."""
    parts = urlsplit(value or "https://unset")
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
        raise ValueError("is no https address (http only on this machine)")
    if not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("holds more than scheme, host and port")
    return value


def is_a_day(value: str) -> str:
    """Refuse what is no day of the calendar."""
    try:
        datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(f"{value} is no day of the calendar") from None
    return value


def day_began(day: str) -> int:
    """Seconds since 1970, UTC."""
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp())


class _Desk(Spec):
    """What help desks have in common."""

    _host: ClassVar[str]

    subdomain: str | None = Field(default=None, pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    """`acme` for acme.zendesk.com, acme.freshdesk.com or acme.atlassian.net; exactly one of `subdomain` and
    `base_url`."""
    base_url: str | None = None
    """Scheme and host of another address; https, or http on this machine."""
    start: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    """Tickets that changed on this day, UTC, or later."""
    reply: Literal["last", "first", "longest"] = "last"
    """Which public comment of an agent is the reply."""
    columns: dict[TicketColumn, str] = Field(default={})
    """Ticket column -> what it is read from; `fields.NAME` is a custom field (docs/sources.md)."""

    @model_validator(mode="after")
    def _has_one_address(self) -> Self:
        if (self.subdomain is None) == (self.base_url is None):
            raise ValueError("give exactly one of `subdomain` and `base_url`")
        return self

    _address = field_validator("base_url")(is_an_address)
    _day = field_validator("start")(is_a_day)

    @property
    def address(self) -> str:
        """Where it is asked, without a slash at the end."""
        return (self.base_url or f"https://{self.subdomain}.{self._host}").rstrip("/")

    @property
    def start_time(self) -> int:
        """Seconds since 1970."""
        return day_began(self.start)


class ZendeskSource(_Desk):
    """Tickets and comments of a Zendesk account, by its incremental export; the extra `zendesk`."""

    _host = "zendesk.com"

    kind: Literal["zendesk"]
    email: str | None = None
    """Of the agent whose `api_token` it is."""
    api_token: Secret | None = None
    """`${env:NAME}`; with `email`. Exactly one of `api_token` and `oauth_token`."""
    oauth_token: Secret | None = None
    """`${env:NAME}`."""
    statuses: tuple[Literal["new", "open", "pending", "hold", "solved", "closed"], ...] = Field(
        default=("solved", "closed"), min_length=1
    )
    """Tickets of other statuses are dropped as `other_status`, and their comments are not fetched."""
    page_size: int = Field(default=1000, ge=1, le=1000)
    """Tickets of one page of the export."""
    requests_per_minute: int = Field(default=10, ge=1, le=700)
    """Pages of the export asked for in a minute; Zendesk's limit is 10, or 30 with an add-on."""

    @model_validator(mode="after")
    def _has_one_login(self) -> Self:
        if (self.api_token is None) == (self.oauth_token is None):
            raise ValueError("give exactly one of `api_token` and `oauth_token`")
        if (self.api_token is None) != (self.email is None):
            raise ValueError("`email` goes with `api_token`, and only with it")
        return self


class FreshdeskSource(_Desk):
    """Tickets and conversations of a Freshdesk account, by its list of what changed; the extra `freshdesk`."""

    _host = "freshdesk.com"

    kind: Literal["freshdesk"]
    api_key: Secret
    """`${env:NAME}`; the key of an agent who may see all tickets."""
    statuses: tuple[Annotated[str, StringConstraints(pattern=r"^(open|pending|resolved|closed|[0-9]{1,6})$")], ...] = (
        Field(default=("resolved", "closed"), min_length=1)
    )
    """Tickets of other statuses are dropped as `other_status`, and their conversations are not fetched; a status of
    your own is its number."""
    page_size: int = Field(default=100, ge=1, le=100)
    """Tickets of one page of the list."""
    requests_per_minute: int = Field(default=50, ge=1, le=700)
    """Of lists and conversations together; Freshdesk's limit depends on the plan."""


class JiraSource(_Desk):
    """Requests of Jira Service Management with their public comments, by the search for what changed; the extra
    `jira`."""

    _host = "atlassian.net"

    kind: Literal["jira"]
    cloud_id: str | None = Field(default=None, pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
    """Instead of `subdomain`, for a token with scopes: https://SUBDOMAIN.atlassian.net/_edge/tenant_info tells it."""
    email: str
    """Of the account whose `api_token` it is."""
    api_token: Secret
    """`${env:NAME}`; of an agent who may see all requests of the projects."""
    projects: tuple[Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{1,99}$")], ...] = Field(min_length=1)
    """Keys of the service projects, such as `SUP`."""
    statuses: tuple[Literal["new", "indeterminate", "done"], ...] = Field(default=("done",), min_length=1)
    """Categories of Jira's statuses: `new` is to do, `indeterminate` in progress. Tickets of others are dropped as
    `other_status`, and their comments are not fetched."""
    deletions: Literal["compare", "ignore"] = "compare"
    """`compare` lists all ids after each search: tickets that are gone become `deleted_upstream`, and tickets that the
    search did not show are fetched."""
    page_size: int = Field(default=100, ge=1, le=100)
    """Tickets of one page of the search; Jira may give fewer."""
    requests_per_minute: int = Field(default=300, ge=1, le=10_000)
    """Of searches and comments together; Jira's limit depends on the plan."""

    @model_validator(mode="after")
    def _has_one_address(self) -> Self:
        if sum(each is not None for each in (self.subdomain, self.cloud_id, self.base_url)) != 1:
            raise ValueError("give exactly one of `subdomain`, `cloud_id` and `base_url`")
        if len(set(self.projects)) < len(self.projects):
            raise ValueError("`projects` names a project twice")
        return self

    @property
    def address(self) -> str:
        """Where it is asked, without a slash at the end."""
        return f"https://api.atlassian.com/ex/jira/{self.cloud_id}" if self.cloud_id else super().address


class IntercomSource(Spec):
    """Conversations of an Intercom workspace, by its search for what changed; the extra `intercom`."""

    kind: Literal["intercom"]
    region: Literal["us", "eu", "au"] = "us"
    """Where the workspace is hosted."""
    base_url: str | None = None
    """Scheme and host of another address; https, or http on this machine."""
    access_token: Secret
    """`${env:NAME}`; it must be allowed to read conversations."""
    start: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    """Conversations that changed on this day, UTC, or later."""
    statuses: tuple[Literal["open", "closed", "snoozed"], ...] = Field(default=("closed",), min_length=1)
    """Conversations of other states are dropped as `other_status`, and their parts are not fetched."""
    reply: Literal["last", "first", "longest"] = "last"
    """Which public part of an agent is the reply."""
    page_size: int = Field(default=150, ge=1, le=150)
    """Conversations of one page of the search."""
    requests_per_minute: int = Field(default=600, ge=1, le=10_000)
    """Of searches and conversations together; Intercom's limit depends on the plan."""
    columns: dict[TicketColumn, str] = Field(default={})
    """Ticket column -> what it is read from; `fields.NAME` is a custom attribute (docs/sources.md)."""

    _address = field_validator("base_url")(is_an_address)
    _day = field_validator("start")(is_a_day)

    @property
    def address(self) -> str:
        """Where it is asked, without a slash at the end."""
        host = "api.intercom.io" if self.region == "us" else f"api.{self.region}.intercom.io"
        return (self.base_url or f"https://{host}").rstrip("/")

    @property
    def start_time(self) -> int:
        """Seconds since 1970."""
        return day_began(self.start)


class PostgresSource(Spec):
    """A table, or one SELECT, of a Postgres database, read-only and incrementally by a cursor column; the extra
    `postgres`."""

    kind: Literal["postgres"]
    dsn: Secret
    """`${env:NAME}`; the variable holds `postgresql://user:password@host:5432/database`."""
    table: str | None = None
    """`table` or `schema.table`."""
    query: str | None = None
    """One SELECT statement in Postgres' dialect; exactly one of `table` and `query`."""
    key: tuple[str, ...] = Field(min_length=1, max_length=8)
    """Columns that name a row: together unique and never null."""
    cursor: str
    """Column that grows whenever a row is written, such as `updated_at`."""
    page_size: int = Field(default=5000, ge=1, le=100_000)
    """Rows that are fetched and kept at a time."""
    overlap_s: int = Field(default=120, ge=0, le=86_400)
    """Where the cursor is a time: seconds before the highest one seen that are read again, for rows whose transaction
    ended late."""
    statement_timeout_s: int = Field(default=300, ge=1, le=86_400)
    """The server ends a statement that runs longer."""
    deletions: Literal["compare", "ignore"] = "compare"
    """`compare` reads all keys after each sync: rows that are gone become `deleted_upstream`, and rows that the cursor
    did not show are fetched."""
    shape: Shape = "auto"
    """As of `kind: files`."""
    columns: dict[TicketColumn, str] = Field(default={})
    """Ticket column -> column of the table or query, or a path into it, as of `kind: files`."""
    extra_columns: Literal["ignore", "error"] = "ignore"
    """What to do with columns that are neither ticket columns nor mapped."""

    @model_validator(mode="after")
    def _one_of(self) -> PostgresSource:
        if (self.table is None) == (self.query is None):
            raise ValueError("give exactly one of `table` and `query`")
        if len(set(self.key)) < len(self.key):
            raise ValueError("`key` names a column twice")
        return self


DeskSource = ZendeskSource | FreshdeskSource | IntercomSource | JiraSource
RemoteSource = DeskSource | PostgresSource
