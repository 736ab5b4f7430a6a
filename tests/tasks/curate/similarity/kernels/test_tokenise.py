"""The kernel's words are those of the normal form in SQL, for any text; its hashes say so."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tasks.curate.similarity import shingles as shingles_module
from tasks.curate.similarity.letters import ascii_classes, character_classes, fold_batch, simple_folds
from tasks.curate.similarity.shingles import ShingleSets, shingle_sets, shingles_of_texts
from tasks.curate.similarity.words import INVISIBLE, UNSPACED, WORD, folded, normal_form, words_of
from tasks.storage.warehouse import connect

ODD = (
    "aZ09 _-.,\t\n\0éÉßẞıİKﬁ中の〇สวัлд́\u0301\u00ad\u200b\u200d\ufeff\u00a0\u3000’“😀👩\u200d👩ǅ᾿"
    "\U000e0001\U00020000\u104a฿"
)
TEXTS = st.text(st.sampled_from(ODD) | st.characters(codec="utf-8"), max_size=40)


def words_in_sql(texts: Sequence[str]) -> list[list[str]]:
    with connect(threads=1) as connection:
        connection.register("given", pa.table({"number": range(len(texts)), "text": pa.array(texts, pa.string())}))
        normal = f"SELECT number, {normal_form('text')} AS normal FROM given"
        rows = connection.sql(f"SELECT {words_of('normal')} AS words FROM ({normal}) ORDER BY number")
        return [row["words"] for row in rows.to_arrow_table().to_pylist()]


def sets_of(sets: ShingleSets) -> list[frozenset[int]]:
    return [
        frozenset(sets.hashes[start : start + size].tolist())
        for start, size in zip(sets.starts, sets.sizes, strict=True)
    ]


def check_words(texts: Sequence[str], n_words: int = 1) -> None:
    """Texts have equal keys, and shingles in common, exactly where their words in SQL do."""
    words = words_in_sql(texts)
    sets = shingles_of_texts(texts, n_words=n_words)
    assert [tuple(key) == (0, 0) for key in sets.keys.tolist()] == [not listed for listed in words]
    by_words: dict[tuple[str, ...], set[tuple[int, ...]]] = {}
    for listed, key in zip(words, sets.keys.tolist(), strict=True):
        by_words.setdefault(tuple(listed), set()).add(tuple(key))
    assert all(len(keys) == 1 for keys in by_words.values())
    assert len(set().union(*by_words.values())) == len(by_words)
    expected = [{tuple(w[i : i + n_words]) for i in range(len(w) - n_words + 1)} for w in words]
    hashes = sets_of(sets)
    assert [len(one) for one in hashes] == sets.sizes.tolist() == [len(one) for one in expected]
    for one, two in zip(range(len(texts)), range(1, len(texts)), strict=False):
        assert len(hashes[one] & hashes[two]) == len(expected[one] & expected[two])


@given(st.lists(TEXTS, max_size=12), st.integers(1, 4))
@example(["in\u00advisible", "invisible", "\u00ad", "\u00adab", "ab\u00ad", "a b", "a\u3000b"], 1)
@example(["中a中", "中 a 中", "a中", "中", "\u00ad中\u00ad文"], 2)
@example(["abcdefgh", "ABCDEFGHi", "abcdefgh i", "é" * 9, "É" * 9, "abcdefé", "abcdefgé", "abcdefghé"], 1)
def test_words_of_any_text_are_those_of_the_normal_form_in_sql(texts: list[str], n_words: int) -> None:
    check_words([*texts, *(text.upper() for text in texts), *(text + "x" for text in texts)], n_words)


def test_words_of_every_length_and_place_count_alike() -> None:
    # Bytes are read by eight: each length at each place, at the very end of the data too.
    letters = "abcdefghijklmnopqrstuvwxyzabcdefghij"
    texts = [" " * lead + letters[:length].upper() for length in range(1, 36) for lead in range(9)]
    keys = shingles_of_texts(texts, n_words=1).keys
    assert len({tuple(key) for key in keys.tolist()}) == 35
    expected = shingles_of_texts([text.strip().lower() + " " for text in texts], n_words=1).keys
    assert np.array_equal(keys, expected)
    assert np.array_equal(keys[::40], [shingles_of_texts([text], n_words=1).keys[0] for text in texts[::40]])


def test_each_ascii_character_is_what_the_regular_expression_says() -> None:
    assert ascii_classes().tolist() == character_classes()[:128].tolist()


def test_every_character_has_the_class_that_the_normal_form_gives_it() -> None:
    classes = character_classes()
    assert np.bincount(classes).tolist()[3] > 100
    with connect(threads=1) as connection:
        beyond = connection.execute(
            f"SELECT count(*) FROM range(262144, 1114112) t(i) WHERE i NOT BETWEEN 917504 AND 921599 AND "
            f"(regexp_full_match(chr(i::INTEGER), '{WORD}') OR regexp_full_match(chr(i::INTEGER), '{INVISIBLE}') "
            f"OR regexp_full_match(chr(i::INTEGER), '{UNSPACED}'))"
        ).fetchall()
    assert beyond == [(0,)]


def test_real_text_of_many_scripts_has_the_words_of_the_normal_form(shared_data: Path) -> None:
    lines = json.loads((shared_data / "naughty_strings" / "blns.json").read_text("utf-8"))
    assert len(lines) > 300
    check_words(lines, 2)


def test_a_budget_and_the_size_of_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(5)
    texts = [
        " ".join(rng.choice(("alpha", "beta", "gamma", "中", "é")) for _ in range(rng.randrange(30)))
        for _ in range(500)
    ]
    whole = shingles_of_texts(texts, n_words=3)
    batches = [pa.array(texts[start : start + 7], pa.large_string()) for start in range(0, len(texts), 7)]
    spilled = shingle_sets(batches, n_words=3, budget=1000)
    assert not isinstance(whole.hashes.base, np.memmap)
    assert isinstance(spilled.hashes.base, np.memmap)
    for name in ("hashes", "starts", "sizes", "keys"):
        assert np.array_equal(getattr(whole, name), getattr(spilled, name))
    monkeypatch.setattr(shingles_module, "BATCH_ROWS", 3)
    assert np.array_equal(shingles_of_texts(texts, n_words=3).keys, whole.keys)


def test_sliced_and_empty_columns_are_read_from_their_own_offset() -> None:
    column = pa.array(["not this one", "some words here to read", "", "and these words too"], pa.string())
    sliced = shingle_sets([column.slice(1, 3), column.slice(4), pa.array([], pa.string())], n_words=2)
    assert np.array_equal(sliced.keys, shingles_of_texts(column.to_pylist()[1:], n_words=2).keys)
    assert len(shingles_of_texts([], n_words=2)) == 0
    assert shingles_of_texts(pa.chunked_array([[None, "a b"]], pa.string()), n_words=2).sizes.tolist() == [0, 1]


def test_a_text_longer_than_a_batch_buffer_keeps_every_shingle() -> None:
    n = 70_000
    sets = shingles_of_texts(["x " + " ".join(map(str, range(n)))], n_words=1)
    assert sets.sizes.tolist() == [n + 1]


def folded_in_sql(texts: Sequence[str]) -> list[str]:
    with connect(threads=1) as connection:
        connection.register("given", pa.table({"number": range(len(texts)), "text": pa.array(texts, pa.string())}))
        rows = connection.sql(f"SELECT lower({folded('text')}) AS text FROM given ORDER BY number")
        listed = [str(row["text"]) for row in rows.to_arrow_table().to_pylist()]
    return [text.replace("\0", " ") for text in listed]


def fold(texts: Sequence[str]) -> list[str]:
    """Without the case of ASCII, which may stay in texts of ASCII alone."""
    listed: list[str] = fold_batch(pa.array(texts, pa.string())).to_pylist()
    # ASCII is left as it is where all of the batch is ASCII.
    return [(text.lower() if text.isascii() else text).replace("\0", " ") for text in listed]


@given(st.lists(TEXTS, max_size=12))
@example(["Ⱥ", "ÀÉ", "A\u0300", "\u212b", "❤\ufe0f", "각", "\u1100\u1161", "สวัสดี", "İ", "ǅ", "Ω", "ΣΑΣ", "A"])
def test_the_kernel_folds_as_sql_does(texts: list[str]) -> None:
    assert fold(texts) == folded_in_sql(texts)


def test_every_simple_character_folds_as_in_sql_beside_any_other() -> None:
    codes = np.flatnonzero(simple_folds())
    assert len(codes) > 100_000
    rng = random.Random(2)
    texts = []
    for _ in range(3):
        order = rng.sample(codes.tolist(), len(codes))
        texts += ["".join(map(chr, order[start : start + 400])) for start in range(0, len(order), 400)]
    # Each also between two letters that marks combine with.
    texts += [
        "".join(f"a{chr(code)}e" for code in codes.tolist()[start : start + 400]) for start in range(0, len(codes), 400)
    ]
    assert fold(texts) == folded_in_sql(texts)


def test_hard_texts_keep_their_places_among_others() -> None:
    texts = ["Plain", "Größe", "a\u0301", "สวัสดี", "ÜBER", "", "n\u0303"]
    column = pa.array(["x", *texts], pa.large_string()).slice(1)
    assert fold_batch(column).to_pylist() == ["plain", "größe", "á", "สวัสดี", "über", "", "ñ"]
