"""Faults on the page: carets stand under what is wrong, whatever the line looks like."""

import pytest

from schemas.diagnostics import ConfigErrors, Diagnostic, SourceText, Span


@pytest.mark.parametrize(
    ("line", "span", "shown"),
    [
        ("key: wrong", Span(1, 6, 5), [" 1 | key: wrong", "   |      ^^^^^"]),
        ("\tk: wrong", Span(1, 5, 5), [" 1 | \tk: wrong", "   | \t   ^^^^^"]),
        ("名前: wrong", Span(1, 5, 5), [" 1 | 名前: wrong", "   |       ^^^^^"]),
        ("key:", Span(1, 5, 9), [" 1 | key:", "   |     ^"]),
        ("a\x1b[31mb", Span(1, 7, 1), [" 1 | a\N{REPLACEMENT CHARACTER}[31mb", "   |       ^"]),
    ],
)
def test_carets_stand_under_the_fault(line: str, span: Span, shown: list[str]) -> None:
    rendered = SourceText("f.yaml", line).fault("TG0103", "wrong", span).render()
    assert rendered.splitlines()[3:] == shown


def test_of_a_long_line_the_part_around_the_fault_is_shown() -> None:
    line = "a" * 500 + "WRONG" + "b" * 500
    rendered = SourceText("f.yaml", line).fault("TG0103", "wrong", Span(1, 501, 5)).render().splitlines()
    assert rendered[1] == "  --> f.yaml:1:501"
    assert rendered[3].startswith(" 1 | ...aaa")
    assert rendered[3].endswith("bbb...")
    start = rendered[4].index("^")
    assert rendered[3][start : start + 5] == "WRONG"
    assert rendered[4].count("^") == 5


def test_the_gutter_grows_with_the_line_number() -> None:
    rendered = SourceText("f.yaml", "\n" * 1233 + "here").fault("TG0103", "wrong", Span(1234, 1, 4), "help").render()
    assert rendered.splitlines()[1:] == [
        "    --> f.yaml:1234:1",
        "     |",
        "1234 | here",
        "     | ^^^^",
        "     = help: help",
    ]


def test_messages_stay_on_one_line_and_cannot_steer_a_terminal() -> None:
    fault = SourceText("f.yaml", "x").fault("TG0101", "unknown key `a\nb\x1b[2J`", help="a\rb")
    assert fault.render() == "error[TG0101]: unknown key `a\\nb\\x1b[2J`\n  --> f.yaml\n   = help: a\\rb"


def test_errors_come_in_the_order_of_lines_and_equal_ones_once() -> None:
    late, early = (Diagnostic("TG0101", "m", "f", Span(line, 1)) for line in (9, 2))
    whole = Diagnostic("TG0110", "m", "f")
    errors = ConfigErrors([late, early, late, whole])
    assert errors.diagnostics == (whole, early, late)
    assert (errors.code, errors.where) == ("TG0110", "f")
