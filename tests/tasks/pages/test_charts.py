"""Charts leave out what cannot be drawn, keep their labels inside, and escape their text."""

import re
from itertools import pairwise

from tasks.pages import charts
from tasks.pages.charts import Segment

NAN = float("nan")


def test_what_is_not_finite_is_left_out() -> None:
    assert charts.lines([("loss", "candidate", [1, 2], [NAN, NAN])], label="loss") == ""
    assert "nan" not in charts.lines([("loss", "candidate", [1, 2, 3], [1.0, NAN, 2.0])], label="loss")
    assert charts.interval(NAN, 0.1, 0.2, None, colour="good", label="x") == ""
    assert charts.columns([], label="x") == ""
    assert charts.columns([("a", "a", [Segment("kept", 0, "tickets")])], label="x") == ""


def test_names_and_labels_are_escaped() -> None:
    hostile = '"><script>\u202e'
    flat = charts.lines([(hostile, "candidate", [1], [1.0])], label=hostile)
    stacked = charts.columns([(hostile, hostile, [Segment("kept", 1, hostile)])], label=hostile)
    for svg in (flat, stacked, charts.interval(0.1, None, 0.2, 0.0, colour="good", label=hostile)):
        assert "<script>" not in svg
        assert "\u202e" not in svg
        assert "&#34;&gt;&lt;script&gt;\ufffd" in svg


def test_segments_of_a_column_are_stacked_from_the_bottom() -> None:
    parts = [Segment("train", 3, "train"), Segment("validation", 0, "validation"), Segment("test", 1, "test")]
    svg = charts.columns([("2026-W01", "2026-W01", parts)], label="weeks", wide=True)
    (low, low_height), (high, high_height) = [
        (float(y), float(tall)) for y, tall in re.findall(r'y="([0-9.]+)" width="[0-9.]+" height="([0-9.]+)"', svg)
    ]
    assert low + low_height == charts.HEIGHT - 22
    assert round(high + high_height, 1) == low
    assert round(low_height / high_height, 1) == 3.0
    assert "2026-W01: train 3, validation 0, test 1" in svg


def test_labels_below_columns_neither_touch_nor_leave_the_chart() -> None:
    bins = [(f"2026-W{week:02}", f"2026-W{week:02}", [Segment("train", 1, "train")]) for week in range(53)]
    svg = charts.columns(bins, label="weeks", wide=True)
    places = [float(x) for x in re.findall(r'x="([0-9.]+)" y="144" text-anchor="middle">2026', svg)]
    assert places
    assert min(b - a for a, b in pairwise(places)) >= 8 * charts.CHAR_WIDTH
    assert max(places) + 4 * charts.CHAR_WIDTH <= charts.WIDE
