"""Listings of buckets that are none: refused before anything in them is expanded, whatever their encoding."""

from __future__ import annotations

import pytest

from tasks.curate.ingest.s3 import _parsed
from tasks.curate.ingest.web import PassingError

BOMB = '<!DOCTYPE ListBucketResult [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><ListBucketResult>&b;</ListBucketResult>'


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (BOMB.encode(), "declarations"),
        (BOMB.encode("utf-16"), "no XML"),
        (BOMB.encode("utf-16-le"), "declarations"),
        (f'<?xml version="1.0" encoding="utf-16"?>{BOMB}'.encode("utf-16-be"), "declarations"),
        (b'<?xml version="1.0" encoding="cp037"?>' + BOMB.encode("cp037"), "no XML"),
        (f'<?xml version="1.0" encoding="latin-1"?>{BOMB}'.encode("latin-1"), "declarations"),
        (b"<html>", "no XML"),
        (b"\xff\xfe", "no XML"),
        (b"", "no XML"),
        (b"<Error><Code>SlowDown</Code></Error>", "no listing"),
    ],
)
def test_what_is_no_plain_listing_is_refused(body: bytes, told: str) -> None:
    with pytest.raises(PassingError, match=told):
        _parsed(body)


def test_a_listing_is_read() -> None:
    page = _parsed(
        '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><Key>ü.csv</Key></ListBucketResult>'.encode()
    )
    assert page.findtext("Key") == "ü.csv"
