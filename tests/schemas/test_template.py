"""Prompt templates: one grammar, plain ticket columns only."""

import re

import pytest

from schemas.template import template_columns


def test_columns_are_named_once_in_order_of_first_use() -> None:
    assert template_columns("{body} {subject} {body}") == ("body", "subject")


def test_a_template_without_columns_names_none() -> None:
    assert template_columns("plain, {{braces}} kept") == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{bdy}", "`{bdy}` is not a ticket column; did you mean `body`?"),
        ("{body.x}", "`{body.x}` is not a ticket column"),
        ("{body[0]}", "is not a ticket column"),
        ("{}", "`{}` is not a ticket column; allowed: ticket_id, "),
        ("{0}", "`{0}` is not a ticket column"),
        ("{body!r}", "`{body}` has a conversion"),
        ("{body:>9}", "`{body}` has a conversion"),
        ("{body:{subject}}", "`{body}` has a conversion"),
        ("{body", "write `{{` and `}}` for literal braces"),
        ("body}", "write `{{` and `}}` for literal braces"),
    ],
)
def test_whatever_is_no_plain_column_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        template_columns(text)
