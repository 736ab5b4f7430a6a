"""`tunegate predict`: what it checks before a model answers."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.place import Place


def test_an_empty_ticket_is_refused(refusal: Callable[..., str], place: Place, tmp_path: Path) -> None:
    place.promote(1, after=None)
    (tmp_path / "ticket").write_text(" \n")
    assert "error[TG0164]" in refusal("predict", "replies", "--file", "ticket", TUNEGATE_HOME=str(place.home))


@pytest.mark.timeout(60)
def test_an_endless_or_huge_ticket_is_refused_at_once(
    refusal: Callable[..., str], place: Place, tmp_path: Path
) -> None:
    place.promote(1, after=None)
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "large").open("wb") as large:
        large.truncate(1 << 40)
    for file, why in (("pipe", "a pipe, a device"), ("/dev/zero", "a pipe, a device"), ("large", "more than 16 MiB")):
        error = refusal("predict", "replies", "--file", file, TUNEGATE_HOME=str(place.home))
        assert "error[TG0110]" in error
        assert why in error
