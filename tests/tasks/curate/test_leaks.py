"""Planted leaks are found at a small loss, every figure equals a plain count, words are those of the normal form."""

import itertools
import math
import random
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.curation import DecontaminateSpec
from tasks.curate.leaks import PARAPHRASE_PIECES, SHORT_WORDS, Leak, find_leaks, longest_shared_run
from tasks.curate.rows import ticket_table, write_tickets
from tasks.curate.similarity.containment import Vocabulary, words_in
from tasks.curate.similarity.kernels.rewording import best_rewording
from tasks.curate.similarity.reworded import MAX_WORDS, MIN_SHARE
from tasks.curate.similarity.words import folded, normal_form, words_of
from tasks.storage.warehouse import connect

Texts = dict[str, str]
Words = dict[str, list[str]]
KINDS = ("verbatim", "quoted", "half", "third", "sixth", "fourth")


@pytest.fixture
def leaks_of(new_folder: Callable[[], Path]) -> Callable[..., dict[str, Leak]]:
    """Leaks between two lists of texts, by the pool text's id."""

    def find(pool: Texts, held_out: Texts, spec: DecontaminateSpec, **options: Any) -> dict[str, Leak]:
        out = new_folder()
        for name, texts in (("pool", pool), ("held", held_out)):
            rows = [{"ticket_id": key, "body": text, "source": "s", "source_line": 1} for key, text in texts.items()]
            write_tickets(ticket_table(rows), out, name=f"{name}.parquet")
        report = find_leaks(pool=[out / "pool.parquet"], held_out=out / "held.parquet", spec=spec, **options)
        assert report.n_held_out == len(held_out)
        return {leak.ticket_id: leak for leak in report.leaks}

    return find


class Desk:
    """Tickets of sentences, a third of them stock sentences that many tickets share, and greetings and signatures."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.words = [f"w{number}" for number in range(8000)]
        self.rarity = [1 / (rank + 3) for rank in range(len(self.words))]
        self.stock = [self.sentence() for _ in range(300)]
        self.greetings = [self.sentence()[:4] for _ in range(20)]
        self.signatures = [self.sentence() for _ in range(40)]

    def sentence(self) -> list[str]:
        return self.rng.choices(self.words, self.rarity, k=self.rng.randrange(7, 15))

    def ticket(self) -> list[str]:
        rng = self.rng
        sentences = [
            rng.choice(self.stock) if rng.random() < 0.3 else self.sentence() for _ in range(rng.randrange(4, 12))
        ]
        return [word for part in (rng.choice(self.greetings), *sentences, rng.choice(self.signatures)) for word in part]

    def leak(self, kind: str, words: list[str]) -> list[str]:
        other, n = self.ticket(), len(words)
        match kind:
            case "verbatim":
                return words
            case "quoted":
                return [*other[:30], "wrote", *words, *other[30:]]
            case "half":
                return words[: n // 2] + other[:40]
            case "third":
                return other[:40] + words[n // 3 : 2 * n // 3] + other[40:]
            case "sixth":
                return [word if i % 6 else f"new{self.rng.randrange(10**6)}" for i, word in enumerate(words)]
        return [word if i % 4 else f"new{self.rng.randrange(10**6)}" for i, word in enumerate(words)]


def test_six_kinds_of_leaks_are_found_among_boilerplate_at_a_small_loss(leaks_of: Any) -> None:
    desk = Desk(7)
    held_out = {f"h{number:03d}": desk.ticket() for number in range(300)}
    clean = {f"c{number:04d}": " ".join(desk.ticket()) for number in range(2000)}
    planted = {f"{kind}-{n}": kind for n in range(50) for kind in KINDS}
    victims = dict(zip(planted, held_out, strict=True))
    pool = clean | {key: " ".join(desk.leak(kind, held_out[victims[key]])) for key, kind in planted.items()}
    questions = {key: " ".join(words) for key, words in held_out.items()}
    leaks = leaks_of(pool, questions, DecontaminateSpec())
    found = Counter(planted[key] for key in leaks if key in planted)
    assert {kind: found[kind] >= 48 for kind in KINDS} == dict.fromkeys(KINDS, True), found
    assert {leaks[key].kept_id == victims[key] for key in leaks if key in planted} == {True}
    assert len(leaks.keys() & clean.keys()) <= 0.01 * len(clean)
    codes = {kind: {leaks[key].code for key in leaks if planted.get(key) == kind} for kind in KINDS}
    assert codes["verbatim"] == {"leak_exact"}
    assert codes["half"] | codes["third"] == {"leak_quote"}
    assert codes["fourth"] == {"leak_paraphrase"}
    # What the near rule alone and any shared run of 13 words would do.
    near = leaks_of(pool, questions, DecontaminateSpec(), codes=("leak_exact", "leak_near"))
    assert {planted[key] for key in near if key in planted} <= {"verbatim", "quoted"}
    runs = {tuple(words[i : i + 13]) for words in held_out.values() for i in range(len(words) - 12)}
    lost = [
        key
        for key, text in clean.items()
        if any(tuple(words[i : i + 13]) in runs for words in [text.split()] for i in range(len(words) - 12))
    ]
    assert len(lost) > 0.1 * len(clean)


def grams(words: list[str], n: int, gap: int = 0) -> list[tuple[str, ...]]:
    runs = (words[i : i + n] for i in range(len(words) - n + 1))
    return list(dict.fromkeys(tuple("" if gap and k == gap else word for k, word in enumerate(run)) for run in runs))


def comparable(pool: Words, held_out: Words) -> tuple[Words, Words]:
    """The short held-out texts and those about as long as one of them; the others without words."""
    held_out = {key: words if len(words) <= MAX_WORDS else [] for key, words in held_out.items()}
    lengths = {len(words) for words in held_out.values() if len(words) >= 3}
    may = {n for m in lengths for n in range(3, 2 * m + 1) if m <= 2 * n}
    return {key: words if len(words) in may else [] for key, words in pool.items()}, held_out


def reworded(pool: Words, held_out: Words, *, margin: float) -> dict[tuple[str, str], float]:
    """The definition in `find_reworded`, written out."""
    texts = {("held", h): words for h, words in held_out.items()} | {("pool", p): words for p, words in pool.items()}
    n_texts = sum(bool(words) for words in texts.values())
    df = Counter(word for words in texts.values() for word in set(words))
    weight = {word: round(1e9 * math.log((1 + n_texts) / df[word])) for word in df}

    def common(one: list[str], two: list[str]) -> tuple[int, list[str], int]:
        """Weight and words of the heaviest common subsequence, and its breaks; the last words first, as they fit."""
        table = [[0] * (len(two) + 1) for _ in range(len(one) + 1)]
        for i, a in enumerate(one):
            for j, b in enumerate(two):
                table[i + 1][j + 1] = max(table[i][j + 1], table[i + 1][j], (table[i][j] + weight[a]) * (a == b))
        i, j, places = len(one), len(two), []
        while i and j:
            if table[i][j] == table[i - 1][j]:
                i -= 1
            elif table[i][j] == table[i][j - 1]:
                j -= 1
            else:
                i, j = i - 1, j - 1
                places.append((i, i - j))
        n_breaks = sum(shift != next_shift for (_, shift), (_, next_shift) in pairwise(places))
        return table[-1][-1], [one[i] for i, _ in reversed(places)], n_breaks

    scores = {}
    for (p, own), (h, held) in itertools.product(pool.items(), held_out.items()):
        total = sum(weight[word] for word in held)
        if sum(weight[word] for word in held if word in own) < MIN_SHARE * total or not own or not held:
            continue
        heaviest, run, n_breaks = common(held, own)
        shared = len(run) - n_breaks
        score = shared / (len(own) + len(held) - shared)
        if score < 0.55 + margin or heaviest < MIN_SHARE * total or len(run) < 3:
            continue
        others = (words for key, words in texts.items() if key not in {("held", h), ("pool", p)})
        if sum(common(run, words)[0] >= (0.7 - margin) * heaviest for words in others) <= 1:
            scores[p, h] = score
    return scores


def plain_leaks(pool: Texts, held_out: Texts, spec: DecontaminateSpec) -> dict[str, tuple[str, str, float]]:
    """The definition in `find_leaks`, written out."""
    pool_words, held_words = ({key: text.split() for key, text in side.items()} for side in (pool, held_out))
    leaks: dict[str, tuple[str, str, float]] = {}

    def note(code: str, scores: dict[tuple[str, str], float]) -> None:
        for key in pool:
            mine = {other: score for (own, other), score in scores.items() if own == key}
            if mine and key not in leaks:
                best = min(mine, key=lambda other: (-mine[other], other))
                leaks[key] = (code, best, mine[best])

    pairs = [(key, other) for key in pool for other in held_out]
    note("leak_exact", {(p, h): 1.0 for p, h in pairs if pool_words[p] == held_words[h] != []})
    near = {}
    for p, h in pairs:
        one, two = set(grams(pool_words[p], 3)), set(grams(held_words[h], 3))
        if one & two and len(one & two) / len(one | two) >= spec.near_threshold:
            near[p, h] = len(one & two) / len(one | two)
    note("leak_near", near)
    for code, n, gap, threshold, min_pieces in (
        ("leak_quote", spec.long_ngram_words, 0, spec.long_threshold, 1),
        ("leak_paraphrase", spec.short_ngram_words, 0, spec.short_threshold, PARAPHRASE_PIECES),
        ("leak_paraphrase", 5, 2, max(spec.short_threshold, 0.25), 2),
    ):
        if gap:
            pool_words, held_words = comparable(pool_words, held_words)
        frequency = Counter(gram for words in pool_words.values() for gram in grams(words, n, gap))
        n_held_out = Counter(gram for words in held_words.values() for gram in grams(words, n, gap))
        weight = {
            gram: round(1e9 * math.log(1 + len(pool) / max(frequency[gram], 1)))
            for words in held_words.values()
            for gram in grams(words, n, gap)
            if frequency[gram] <= spec.max_document_frequency
        }
        scores = {}
        for p, h in pairs:
            mine, whole = set(grams(pool_words[p], n, gap)), grams(held_words[h], n, gap)
            total = sum(weight.get(gram, 0) for gram in whole)
            shared = sum(weight.get(gram, 0) // n_held_out[gram] for gram in whole if gram in mine)
            marks = "".join("x" if gram in mine and gram in weight else "." if gram in mine else " " for gram in whole)
            n_pieces = sum("x" in piece for piece in marks.split())
            n_pool, n_held = len(pool_words[p]), len(held_words[h])
            if code == "leak_quote" and n_held <= SHORT_WORDS and n_pool <= 2 * n_held <= 4 * n_pool:
                continue
            if total and shared and shared / total >= threshold and n_pieces >= min_pieces:
                scores[p, h] = shared / total
        note(code, scores)
    note("leak_paraphrase", reworded(pool_words, held_words, margin=max(spec.short_threshold - 0.2, 0)))
    return leaks


@pytest.mark.parametrize("seed", range(4))
def test_codes_scores_and_witnesses_equal_a_plain_count(leaks_of: Any, seed: int) -> None:
    """Few words, so that n-grams repeat in a text and between texts, and frequencies lie on both sides of the cap."""
    rng = random.Random(seed)
    vocabulary = [f"w{number}" for number in range(40)]
    held_out = {f"h{n:02d}": " ".join(rng.choices(vocabulary, k=rng.randrange(50))) for n in range(25)}
    pool = {}
    for number in range(150):
        words = rng.choices(vocabulary, k=rng.randrange(12))
        for quoted in rng.sample(sorted(held_out), k=rng.randrange(3)):
            text = held_out[quoted].split()
            start = rng.randrange(6)
            words += text[start : start + rng.randrange(3, 20)]
        if rng.random() < 0.3:
            step = rng.choice((4, 5, 15))
            words = [w if i % step else "new" for i, w in enumerate(held_out[rng.choice(sorted(held_out))].split())]
        pool[f"p{number:03d}"] = " ".join(words)
    for number in range(6):
        held_out[f"long{number}"] = " ".join(rng.choices([f"v{n}" for n in range(300)], k=50))
        pool[f"same{number}"] = held_out[f"long{number}"]
        pool[f"edited{number}"] = " ".join(w if i % 4 else "new" for i, w in enumerate(pool[f"same{number}"].split()))
    spec = DecontaminateSpec(
        near_threshold=rng.choice((0.4, 0.7)),
        long_ngram_words=4,
        long_threshold=0.3,
        short_ngram_words=rng.choice((2, 3)),
        short_threshold=0.2,
        max_document_frequency=rng.choice((3, 6)),
        max_document_share=1,
    )
    expected = plain_leaks(pool, held_out, spec)
    leaks = leaks_of(pool, held_out, spec)
    assert {key: (leak.code, leak.kept_id, leak.score) for key, leak in leaks.items()} == expected
    assert {code for code, _, _ in expected.values()} == {"leak_exact", "leak_near", "leak_quote", "leak_paraphrase"}


def test_the_order_of_rows_and_the_number_of_threads_change_nothing(
    new_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(3)
    held_out = [" ".join(desk.ticket()) for _ in range(40)]
    pool = [" ".join(desk.leak(KINDS[n % 6], held_out[n % 40].split())) for n in range(200)]
    reports = []
    for order, n_threads, batch in ((1, 1, 16_384), (-1, 3, 17)):
        monkeypatch.setattr("os.sched_getaffinity", lambda _process, n=n_threads: set(range(n)))
        monkeypatch.setattr("tasks.curate.leaks.BATCH_ROWS", batch)
        out = new_folder()
        for name, texts in (("pool", pool), ("held", held_out)):
            rows = [
                {"ticket_id": f"{n:04d}", "body": text, "source": "s", "source_line": n} for n, text in enumerate(texts)
            ][::order]
            pa.parquet.write_table(ticket_table(rows), out / f"{name}.parquet")
        reports.append(find_leaks(pool=[out / "pool.parquet"], held_out=out / "held.parquet", spec=DecontaminateSpec()))
    assert len(reports[0].leaks) > 150
    assert reports[0] == reports[1]


def test_short_questions_of_one_trade_are_not_taken_for_paraphrases(
    leaks_of: Any, banking77: list[dict[str, object]]
) -> None:
    texts = {str(row["ticket_id"]): str(row["body"]) for row in random.Random(0).sample(banking77, 3000)}
    held_out = dict(sorted(texts.items())[::5])
    pool = {key: text for key, text in texts.items() if key not in held_out}
    leaks = leaks_of(pool, held_out, DecontaminateSpec())
    assert len(leaks) <= 0.02 * len(pool)


def test_short_template_questions_lose_few_rows_of_other_intents_and_their_paraphrases_are_found(
    leaks_of: Any, bitext: list[dict[str, object]], bitext_intents: dict[str, str]
) -> None:
    rng = random.Random(0)
    texts = {str(row["ticket_id"]): " ".join(words_in(str(row["body"]).lower())) for row in bitext}
    texts = {text: key for key, text in texts.items()}  # each question once
    texts = {key: text for text, key in sorted(texts.items())}
    held_out = {key: text for key, text in texts.items() if rng.random() < 0.2}
    pool = {key: text for key, text in texts.items() if key not in held_out}
    long_ones = rng.sample([key for key, text in held_out.items() if len(text.split()) >= 10], 60)
    some = rng.sample([key for key, text in held_out.items() if len(text.split()) >= 4], 60)

    def replaced(key: str, part: str) -> str:
        words = held_out[key].split()
        n = max(1, round(len(words) / 4))
        places = {
            "third": range(2, len(words), 3),
            "fourth": range(3, len(words), 4),
            "last": range(len(words) - n, len(words)),
            "random": rng.sample(range(len(words)), n),
        }[part]
        return " ".join(f"new{i}" if i in places else word for i, word in enumerate(words))

    copies = {f"copy-{key}": text.upper() for key, text in held_out.items()}
    leaks = leaks_of(pool, held_out, DecontaminateSpec())
    quotes = [leak for leak in leaks.values() if leak.code == "leak_quote"]
    others = [leak for leak in quotes if bitext_intents[leak.ticket_id] != bitext_intents[leak.kept_id]]
    assert len(others) <= 0.15 * len(quotes)
    assert len([leak for leak in leaks.values() if leak.code == "leak_paraphrase"]) <= 0.02 * len(pool)
    for victims, part, least in (
        (long_ones, "third", 35),
        (long_ones, "fourth", 35),
        (some, "third", 21),
        (some, "fourth", 21),
        (some, "last", 21),
        (some, "random", 21),
    ):
        added = {f"new-{key}": replaced(key, part) for key in victims}
        found = leaks_of(pool | added, held_out, DecontaminateSpec())
        n_found = sum(found[key].kept_id == key.removeprefix("new-") for key in added if key in found)
        assert n_found >= least, (part, n_found)
    found = leaks_of(pool | copies, held_out, DecontaminateSpec(), codes=("leak_exact", "leak_near"))
    assert {found[key].code for key in copies} == {"leak_exact"}


def test_a_question_without_a_rare_run_is_counted_as_unprotected(new_folder: Any) -> None:
    out = new_folder()
    texts = {"held": ["where is it"], "pool": [f"where is it n{n}" for n in range(60)]}
    for name, bodies in texts.items():
        rows = [{"ticket_id": f"{n}", "body": b, "source": "s", "source_line": 1} for n, b in enumerate(bodies)]
        write_tickets(ticket_table(rows), out, name=f"{name}.parquet")
    report = find_leaks(pool=[out / "pool.parquet"], held_out=out / "held.parquet", spec=DecontaminateSpec())
    assert (report.n_unprotected, report.leaks) == (1, ())


def test_nothing_on_a_side_is_no_leak(leaks_of: Any) -> None:
    assert leaks_of({}, {"h": "one two three"}, DecontaminateSpec()) == {}
    assert leaks_of({"p": "one two three"}, {}, DecontaminateSpec()) == {}
    assert leaks_of({"p": ""}, {"h": "?!"}, DecontaminateSpec()) == {}


def test_words_of_long_held_out_texts_alone_are_within_the_bounds_of_the_kernel(
    leaks_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Machine code checks no bounds, Python does."""
    kernel = "tasks.curate.similarity.reworded.best_rewording"
    monkeypatch.setattr(kernel, best_rewording.py_func)
    held_out = {"a": "where is my late parcel", "b": " ".join(f"word{number}" for number in range(40))}
    pool = {"p": "word30 word31 word32 word33", "q": "where is my lost parcel", "r": "where was my late order"}
    assert leaks_of(pool, held_out, DecontaminateSpec()).keys() <= {"q"}


ODD = st.text(
    st.one_of(st.sampled_from("aB9 .-_\n\u00ad\u200bßİÅǻカ字ก๙ñ"), st.characters(exclude_categories=("Cs",))),
    max_size=30,
)


@given(st.lists(ODD, min_size=1, max_size=12))
def test_the_words_of_the_kernel_are_those_of_the_normal_form(texts: list[str]) -> None:
    with connect(threads=1) as connection:
        rows = connection.execute(
            f"SELECT {folded('t')}, {words_of(normal_form('t'))} FROM (SELECT unnest($texts::VARCHAR[]) AS t)",
            {"texts": texts},
        ).fetchall()
    assert [words_in(text) for text, _ in rows] == [words for _, words in rows]
    array = pa.array([text for text, _ in rows], pa.string())
    vocabulary = Vocabulary(array)
    names: dict[int, str] = {}
    for numbered in (vocabulary.held_out, vocabulary.number(array)):
        assert numbered.sizes.tolist() == [len(words) for _, words in rows]
        for number, word in zip(numbered.values.tolist(), (w for _, words in rows for w in words), strict=True):
            assert names.setdefault(number, word) == word
    assert len(names) == len({word for _, words in rows for word in words})
    assert set(vocabulary.number(pa.array(["qqqq"])).values.tolist()) <= {-1, *names}


def test_the_shared_run_is_the_longest_and_the_first_of_its_length() -> None:
    assert longest_shared_run("a b c x d e f", "d e f y a b c") == "a b c"
    assert longest_shared_run("Ünder, DOGS bark", "under dogs") == "dogs"
    assert longest_shared_run("", "a") == ""
