"""Kinds of other packages: what is refused, and how it is said; `tests/flows/test_registries.py` runs sound ones."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.errors import ConfigError
from schemas.registries import load_registries
from schemas.source import SOURCES
from tasks.plugins import is_plugin, load_kinds
from tasks.sources import registry
from tests.support.plugins import install

FEED = """
from typing import Literal

from schemas.file_reading import FileReading
from tasks.sources.kind import SourceKind


class FeedSource(FileReading):
    kind: Literal["feed"]


class Feed(SourceKind[FeedSource]):
    spec = FeedSource


KIND = Feed()
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that packages are installed in; what is loaded from it is taken back."""
    load_registries()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("tasks.plugins._loaded", {})
    monkeypatch.setattr(registry, "_MODULES", dict(registry._MODULES))
    yield tmp_path
    if "feed" in SOURCES:
        SOURCES.remove("feed")
    sys.modules.pop("acme_feed", None)


def test_a_kind_is_added_once_and_its_package_known(site: Path) -> None:
    (site / "acme_feed.py").write_text(FEED)
    install(site, sources="feed = acme_feed")
    load_kinds()
    load_kinds()
    assert registry.kind_of(SOURCES["feed"].model_construct()).name == "feed"
    assert is_plugin("acme_feed")
    assert not is_plugin("tasks.sources.files")


def test_a_function_that_is_a_metric_is_no_kind(site: Path) -> None:
    install(site, metrics="polite = acme_absent:polite")
    load_kinds()
    assert not is_plugin("acme_absent")


@pytest.mark.parametrize(
    ("text", "points", "why"),
    [
        ("import acme_driver", {"sources": "feed = acme_feed"}, "ModuleNotFoundError: No module named 'acme_driver'"),
        ("raise SystemExit(0)", {"steps": "feed = acme_feed"}, "SystemExit: 0"),
        ("", {"sources": "feed = acme_feed"}, "AttributeError: module 'acme_feed' has no attribute 'KIND'"),
        ("KIND = 1", {"sources": "feed = acme_feed"}, "TypeError: acme_feed.KIND is not a SourceKind"),
        ("", {"steps": "feed = acme_feed"}, "acme_feed adds no kind of this name"),
        ("", {"checks": "feed = acme_feed"}, "acme_feed adds no kind of this name"),
        (FEED, {"sources": "food = acme_feed"}, "acme_feed adds no kind of this name"),
        (FEED, {"sources": "files = acme_feed"}, "tunegate has a kind of this name already"),
        (FEED, {"sources": "feed = acme_feed\nfeed = acme_other"}, "acme_feed has a kind of this name already"),
        (FEED, {"sources": "feed = acme_feed:KIND"}, "`acme_feed:KIND` must be a module of the package's own"),
        ("", {"sources": "feed = tasks.sources.files"}, "`tasks.sources.files` must be a module of the package's own"),
    ],
)
def test_a_plug_in_that_cannot_be_used_is_named_with_its_package(
    text: str, points: dict[str, str], why: str, site: Path
) -> None:
    (site / "acme_feed.py").write_text(text)
    install(site, version="1.2", **points)
    with pytest.raises(ConfigError) as refused:
        load_kinds()
    assert refused.value.code == "TG0113"
    assert "of acme-tickets 1.2 cannot be used: " in refused.value.message
    assert why in refused.value.message
    assert (refused.value.hint or "").endswith(f"uv pip uninstall --python {sys.executable} acme-tickets")
