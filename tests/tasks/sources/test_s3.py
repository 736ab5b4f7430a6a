"""Listings of buckets that are none: refused before anything in them is expanded, whatever their encoding."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from schemas.remote_source import RemoteFilesSource
from tasks.sources.s3 import Listed, Storage
from tasks.sources.web import PassingError, Web

BOMB = '<!DOCTYPE ListBucketResult [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><ListBucketResult>&b;</ListBucketResult>'


class Answering(Web):
    """Every answer has this body; what may pass is not waited for."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.body = body

    @contextmanager
    def get(self, url: str, headers: Any, **_: Any) -> Iterator[Any]:
        yield SimpleNamespace(status_code=200, headers={}, iter_raw=lambda: [self.body])

    def wait(self, attempt: int, error: PassingError, *, where: str) -> None:
        raise error


def listed(body: bytes) -> list[Listed]:
    """The objects of the bucket in this listing."""
    pattern = "s3://desk/*.csv"
    source = RemoteFilesSource(kind="remote_files", urls=(pattern,), endpoint="http://127.0.0.1:9")
    return list(Storage(source, Answering(body)).matching(pattern))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (BOMB.encode(), "a document type or entities"),
        (BOMB.encode("utf-16"), "not XML"),
        (BOMB.encode("utf-16-le"), "a document type or entities"),
        (f'<?xml version="1.0" encoding="utf-16"?>{BOMB}'.encode("utf-16-be"), "a document type or entities"),
        (b'<?xml version="1.0" encoding="cp037"?>' + BOMB.encode("cp037"), "not XML"),
        (f'<?xml version="1.0" encoding="latin-1"?>{BOMB}'.encode("latin-1"), "a document type or entities"),
        (b"<html>", "not XML"),
        (b"\xff\xfe", "not XML"),
        (b"", "not XML"),
        (b"<Error><Code>SlowDown</Code></Error>", "not a listing"),
    ],
)
def test_a_response_that_is_not_a_plain_listing_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(PassingError, match=message):
        listed(body)


def test_a_listing_is_read() -> None:
    contents = "<Contents><Key>ü.csv</Key><ETag>e</ETag><Size>3</Size></Contents>"
    page = f'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult>{contents}</ListBucketResult>'
    assert listed(page.encode()) == [Listed("s3://desk/ü.csv", "e", 3)]
