"""Remote sources: Zendesk, Postgres, and files in S3-compatible storage or at https addresses. Part of `source`
(`schemas/source.py`).

Rows are first ingested into a file, `ingest.duckdb`, and files as copies; both are read from there.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Literal, Self
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, Field, StringConstraints, field_validator, model_validator

from schemas.file_reading import FileReading, RowReading, Source
from schemas.secret import Secret
from schemas.tables import TicketColumn

LOOPBACK = ("127.0.0.1", "localhost", "::1")
S3 = "s3://"
_CREDENTIAL = re.compile(
    r"(x-amz-)?(credential|security-token|signature)|sig|token|access_token|api_?key|password|awsaccesskeyid", re.I
)


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


class PostgresSource(RowReading):
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

    @model_validator(mode="after")
    def _one_of(self) -> PostgresSource:
        if (self.table is None) == (self.query is None):
            raise ValueError("give exactly one of `table` and `query`")
        if len(set(self.key)) < len(self.key):
            raise ValueError("`key` has a column twice")
        return self


def is_pattern(url: str) -> bool:
    """Return whether the url is a pattern for objects of a bucket.

    >>> is_pattern("s3://b/x/*.csv"), is_pattern("https://h.example/x.csv?download=1")
    (True, False)
    """
    return url.startswith(S3) and any(sign in url for sign in "*?")


def in_pattern(url: str, pattern: str) -> bool:
    """Return whether the pattern matches this object. `*` and `?` match within a folder, `**/` any number of folders.

    >>> in_pattern("s3://b/x/1.csv", "s3://b/x/*.csv"), in_pattern("s3://b/x/y/1.csv", "s3://b/x/*.csv")
    (True, False)
    >>> in_pattern("s3://b/x/y/1.csv", "s3://b/**/*.csv"), in_pattern("s3://b/1.csv", "s3://b/**/*.csv")
    (True, True)
    """
    return _compiled(pattern).fullmatch(url) is not None


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    meant = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    return re.compile("".join(meant.get(part, re.escape(part)) for part in parts), re.DOTALL)


def is_a_url(url: str) -> str:
    """Refuse a url that is not an object or pattern of a bucket, or a file at an https address without a credential."""
    if any(ord(sign) <= 32 or ord(sign) == 127 for sign in url):
        raise ValueError(f"{url!r} has blanks or control characters")
    if url.startswith(S3):
        bucket, _, key = url.removeprefix(S3).partition("/")
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", bucket) or not key or key.endswith("/"):
            raise ValueError(f"{url!r} is not `s3://bucket/key`, where only the key may be a pattern")
        return url
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
        raise ValueError(f"{url!r} starts neither with s3:// nor with https:// (http:// only on this machine)")
    if not parts.hostname or parts.port == 0 or "@" in parts.netloc or parts.fragment or not parts.path.strip("/"):
        raise ValueError(f"{url!r} is not an address of a file: scheme, host, path and an optional query")
    if any(_CREDENTIAL.fullmatch(name) for name, _ in parse_qsl(parts.query, keep_blank_values=True)):
        raise ValueError("the query of a url has a credential, which must not be in a file; use `bearer_token`")
    if "*" in url:
        raise ValueError(f"{url!r}: only s3:// can have patterns; a web server does not list its files")
    return url


_Url = Annotated[str, StringConstraints(max_length=2048), AfterValidator(is_a_url)]
_Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class RemoteFilesSource(FileReading):
    """CSV, JSONL or Parquet files, optionally .gz or .zst, from S3-compatible storage or https addresses."""

    kind: Literal["remote_files"]
    urls: tuple[_Url, ...] = Field(min_length=1)
    """`s3://bucket/key`, whose key may have `*`, `**` and `?`, or `https://host/path`; http only on this machine."""
    endpoint: str | None = None
    """Scheme and host of S3-compatible storage, with path-style addresses; null is Amazon's."""
    region: str = Field(default="us-east-1", pattern=r"^[a-z0-9-]{1,32}$")
    """Of the bucket."""
    access_key_id: Secret | None = None
    """`${env:NAME}`; with `secret_access_key`. Without both, s3:// is read anonymously."""
    secret_access_key: Secret | None = None
    """`${env:NAME}`."""
    session_token: Secret | None = None
    """`${env:NAME}`, of temporary credentials."""
    profile: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._@+-]{1,128}$")
    """Section of `~/.aws/credentials` (or of the file that `AWS_SHARED_CREDENTIALS_FILE` names) with the keys,
    instead of `access_key_id` and `secret_access_key`."""
    bearer_token: Secret | None = None
    """`${env:NAME}`; sent only to the host of the https addresses, not to redirects."""
    sha256: dict[str, _Digest] = Field(default={})
    """Url -> sha256 of its file; for a pattern, by the url of each object."""
    max_total_mb: int = Field(default=20_480, ge=1, le=1_048_576)
    """Megabytes (of 1,048,576 bytes) of all files together, as transferred; more is refused, and nothing is kept."""
    parallel: int = Field(default=4, ge=1, le=32)
    """Files to fetch in parallel."""
    max_files: int = Field(default=10_000, ge=1, le=100_000)
    """Maximum number of files."""

    _address = field_validator("endpoint")(is_an_address)

    @model_validator(mode="after")
    def _fits_together(self) -> RemoteFilesSource:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("give both of `access_key_id` and `secret_access_key`, or neither")
        if self.profile is not None and self.access_key_id is not None:
            raise ValueError("give `profile` or the keys themselves, not both")
        if self.session_token is not None and self.access_key_id is None:
            raise ValueError("`session_token` needs `access_key_id`")
        hosts = {urlsplit(url).netloc for url in self.urls if not url.startswith(S3)}
        if self.bearer_token is not None and len(hosts) != 1:
            raise ValueError(f"`bearer_token` needs https addresses of one host; there are {len(hosts)} hosts")
        for url in self.sha256:
            if url not in self.urls and not any(is_pattern(each) and in_pattern(url, each) for each in self.urls):
                raise ValueError(f"`sha256` has {url!r}, which is not in `urls`")
        return self
