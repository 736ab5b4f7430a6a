"""The normal form that decides what an equal question is, and the words that shingles are made of."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.curate.similarity.words import normal_form, word_runs, words_of
from tasks.storage.warehouse import connect


def evaluate(expression: str, text: str) -> object:
    with connect(threads=1) as connection:
        return connection.execute(f"SELECT {expression} FROM (SELECT $text AS text)", {"text": text}).fetchall()[0][0]


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("  Hello,\tWORLD!!\n\nIt's me ", "hello world it s me"),
        ("caf\u00e9 CAFE\u0301", "caf\u00e9 caf\u00e9"),
        ("in\u00advisi\u200bble", "invisible"),
        ("mail [EMAIL_1] now", "mail email 1 now"),
        ("订单ab没有", "订 单 ab 没 有"),
        ("!!! ...", ""),
        ("", ""),
    ],
)
def test_case_accents_punctuation_and_invisible_characters_do_not_count(text: str, normal: str) -> None:
    assert evaluate(normal_form("text"), text) == normal


def test_the_normal_form_is_its_own_normal_form() -> None:
    once = evaluate(normal_form("text"), "Straße İstanbul ﬁn \u1e9e สวัสดี a_b #1")
    assert isinstance(once, str)
    assert evaluate(normal_form("text"), once) == once


def test_runs_are_distinct_and_absent_where_words_are_few() -> None:
    words = words_of("text")
    assert sorted(evaluate(word_runs(f"({words})", 2), "a b a b")) == ["a b", "b a"]  # type: ignore[call-overload]
    assert evaluate(word_runs(f"({words})", 3), "a b") == []
    assert evaluate(words, "") == []


def test_the_join_starts_without_pandas_and_pydantic() -> None:
    code = "import sys, tasks.curate.similarity.families; print({'pandas', 'pydantic'} & set(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
