"""The tickets of `bench-dedup` and the exact answer: pseudo-words, stock text, planted copies of known similarity.

Equal seeds give equal bytes: it uses only PCG64's uniform numbers, which numpy keeps stable. Knows nothing of engines.

A ticket has 36 to about 170 words (mean 100): greeting, sentences, and often a signature. Words follow a Zipf law; 30 %
of the sentences come from a pool of stock sentences, so unrelated tickets share text, as real ones do. About 9 % of the
tickets are byte-exact copies, 1.5 % copies with other case, spacing or punctuation, and 18 % near copies with edited
words, stored with the Jaccard similarity of their 3-word shingles to those of the original.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

VERSION = 1
"""Part of the file names: increase it when the texts change."""
SEED = 20260601
SHINGLE_WORDS = 3
THRESHOLD = 0.7
BRUTE_FORCE_TICKETS = 30_000
TARGETS = (0.95, 0.9, 0.85, 0.8, 0.75, 0.72, 0.7, 0.68, 0.65, 0.6, 0.5, 0.4)
_SLACK = 1e-9
_WORD = re.compile(r"\w+")
_COMMON_WORDS = (
    "the to a and is my i not we it of in on for with this that you have was account login password reset invoice "
    "charge refund order ticket error page app crash update install license email verify billing plan upgrade cancel "
    "subscription payment card declined shipping delivery delay tracking device sync slow timeout server key export "
    "report dashboard user admin role team file upload download please thanks help problem since yesterday today"
)
_ONSETS = (*"bcdfghjklmnprstvwz", "ch", "sh", "st", "tr", "pr", "br", "gr", "pl", "cl")
_VOWELS = ["a", "e", "i", "o", "u", "ai", "ea", "ou"]


@dataclass(frozen=True)
class Size:
    """One corpus: its name, its number of tickets, and how many of them are copies of one auto-reply."""

    name: str
    n_tickets: int
    n_flood: int = 0


SIZES = {
    size.name: size
    for size in (
        Size("2k", 2_000),
        Size("20k", 20_000),
        Size("200k", 200_000),
        Size("1m", 1_000_000),
        Size("flood", 20_000, n_flood=10_000),
    )
}


class Ticket(NamedTuple):
    """One text, the number of its original, how it was made, and its similarity to the original."""

    text: str
    original: int
    kind: str
    jaccard: float


Sentences = list[list[str]]


def shingles(text: str) -> set[tuple[str, ...]]:
    """The distinct 3-word shingles; a shorter text is one shingle."""
    words = _WORD.findall(text.lower())
    if len(words) < SHINGLE_WORDS:
        return {tuple(words)}
    return set(zip(*(words[start:] for start in range(SHINGLE_WORDS)), strict=False))


def jaccard(one: set[tuple[str, ...]], two: set[tuple[str, ...]]) -> float:
    """Jaccard similarity of two shingle sets."""
    return len(one & two) / len(one | two)


class _Random:
    """Random draws, based on uniform numbers only."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.Generator(np.random.PCG64(seed))

    def chance(self) -> float:
        return float(self._generator.random())

    def below(self, n: int) -> int:
        return int(self._generator.random() * n)

    def between(self, low: int, high: int) -> int:
        return low + self.below(high - low)

    def ranks(self, cumulative: np.ndarray, n: int) -> list[int]:
        """Indices drawn by weight."""
        return np.searchsorted(cumulative, self._generator.random(n), side="right").tolist()

    def order(self, n: int) -> list[int]:
        """A permutation of range(n)."""
        return np.argsort(self._generator.random(n), kind="stable").tolist()


def _zipf(n: int, exponent: float, shift: float = 0.0) -> np.ndarray:
    weights = 1.0 / (np.arange(1, n + 1) + shift) ** exponent
    return np.cumsum(weights / weights.sum())


class _Writer:
    """Writes tickets; all random draws come from the seed."""

    def __init__(self, seed: int) -> None:
        self._rng = _Random(seed)
        fixed = _Random(SEED + 1)  # the same language for every corpus
        self._words = _COMMON_WORDS.split()
        known = set(self._words)
        while len(self._words) < 20_000:
            parts = fixed.between(2, 5)
            word = "".join(_ONSETS[fixed.below(27)] + _VOWELS[fixed.below(8)] for _ in range(parts))
            if word not in known:
                known.add(word)
                self._words.append(word)
        self._word_law = _zipf(20_000, 1.02, 2.7)
        self._stock, self._stock_law = self._pool(fixed, 5_000, 6, 16), _zipf(5_000, 0.9)
        self._greetings, self._greeting_law = self._pool(fixed, 200, 3, 7), _zipf(200, 0.9)
        self._signatures, self._signature_law = self._pool(fixed, 500, 6, 14), _zipf(500, 0.9)

    def _pool(self, rng: _Random, n: int, low: int, high: int) -> Sentences:
        return [self._sentence(rng, rng.between(low, high)) for _ in range(n)]

    def _sentence(self, rng: _Random, n_words: int) -> list[str]:
        return [self._words[rank] for rank in rng.ranks(self._word_law, n_words)]

    def original(self, at_least: int = 0) -> Sentences:
        """A new ticket of 40 to 150 words, a little more when its last sentence is long."""
        rng = self._rng
        goal = max(at_least, rng.between(40, 151))
        sentences = [self._greetings[rng.ranks(self._greeting_law, 1)[0]]]
        tail = [self._signatures[rng.ranks(self._signature_law, 1)[0]]] if rng.chance() < 0.6 else []
        n_words = sum(map(len, sentences + tail))
        while n_words < goal:
            if rng.chance() < 0.3:
                sentence = self._stock[rng.ranks(self._stock_law, 1)[0]]
            else:
                sentence = self._sentence(rng, rng.between(6, 16))
                if rng.chance() < 0.15:
                    sentence.append(f"#{rng.between(10**5, 10**7)}")
            sentences.append(sentence)
            n_words += len(sentence)
        return sentences + tail

    def near_copy(self, sentences: Sentences, target: float) -> Sentences:
        """Replace, remove or add enough words to bring the similarity close to the target.

        An edit changes three shingles: with e edits in n words, J is about (n - 3e) / (n + 3e).
        """
        rng, copy = self._rng, [list(sentence) for sentence in sentences]
        places = [(i, j) for i, sentence in enumerate(copy) for j in range(len(sentence))]
        n_edits = max(1, round(len(places) * (1 - target) / (3 * (1 + target))))
        for place in sorted(rng.order(len(places))[:n_edits], reverse=True):
            i, j = places[place]
            kind, word = rng.chance(), self._words[rng.between(100, 20_000)]
            if kind < 0.6:
                copy[i][j] = word
            elif kind < 0.8 and len(copy[i]) > 3:
                del copy[i][j]
            else:
                copy[i].insert(j, word)
        return copy

    def disguise(self, text: str) -> str:
        """The same words with other case, spacing or punctuation."""
        kind = self._rng.chance()
        if kind < 0.34:
            return text.upper()
        if kind < 0.67:
            return text.replace(". ", ".\n\n")
        return "  " + text.replace(" ", "  ") + " !!"

    def family(self, number: int) -> Iterator[Ticket]:
        """An original and its copies, if any."""
        rng, sentences = self._rng, self.original()
        text = render(sentences)
        yield Ticket(text, number, "original", 1.0)
        fate = rng.chance()
        if fate < 0.06:
            for _ in range(rng.between(1, 4)):
                yield Ticket(text, number, "exact", 1.0)
        elif fate < 0.08:
            yield Ticket(self.disguise(text), number, "disguised", 1.0)
        elif fate < 0.20:
            whole = shingles(text)
            for _ in range(rng.between(1, 4)):
                copy = render(self.near_copy(sentences, TARGETS[rng.below(len(TARGETS))]))
                yield Ticket(copy, number, "near", jaccard(whole, shingles(copy)))

    def flood(self, number: int, n: int) -> Iterator[Ticket]:
        """One auto-reply n times, each with another id and one changed word."""
        rng, sentences = self._rng, self.original(at_least=90)
        whole = shingles(render(sentences))
        for _ in range(n):
            copy = [list(sentence) for sentence in sentences]
            copy[1][2] = f"#{rng.between(10**5, 10**8)}"
            copy[-2][1] = self._words[rng.between(100, 20_000)]
            text = render(copy)
            yield Ticket(text, number, "flood", jaccard(whole, shingles(text)))

    def order(self, n: int) -> list[int]:
        return self._rng.order(n)


def render(sentences: Sentences) -> str:
    """The text; sentences start with a capital and end with a full stop."""
    return " ".join(" ".join([words[0].capitalize(), *words[1:]]) + "." for words in sentences)


def write_tickets(size: Size, *, seed: int = SEED) -> list[Ticket]:
    """All tickets of a corpus in their final, shuffled order."""
    writer = _Writer(seed)
    tickets: list[Ticket] = []
    number = 0
    while len(tickets) < size.n_tickets - size.n_flood:
        tickets.extend(writer.family(number))
        number += 1
    del tickets[size.n_tickets - size.n_flood :]
    tickets.extend(writer.flood(number, size.n_flood))
    return [tickets[place] for place in writer.order(len(tickets))]


def corpus_file(size: Size, folder: Path) -> Path:
    """The corpus as Parquet (id, text, original, kind, jaccard), created at the first call."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / f"dedup-{size.name}-v{VERSION}.parquet"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    tickets = write_tickets(size)
    columns = {name: [getattr(ticket, name) for ticket in tickets] for name in Ticket._fields}
    table = pa.table({"id": pa.array(range(len(tickets)), pa.int64()), **columns})
    part = path.with_suffix(".part")
    pq.write_table(table, part, compression="zstd", row_group_size=50_000)
    part.rename(path)
    return path


def oracle_clusters(corpus: Path, *, n_tickets: int) -> np.ndarray:
    """The exact answer: connected components of the graph of all pairs with Jaccard similarity >= 0.7.

    Returns each ticket's cluster as the smallest id in it; cached in a file next to the corpus. There are two ways,
    which share no code with the application and give the same result; only brute force is fast on a flood of copies.
    """
    path = corpus.with_suffix(".oracle.npy")
    if not path.exists():
        part = path.with_suffix(".part.npy")
        np.save(part, by_brute_force(corpus) if n_tickets <= BRUTE_FORCE_TICKETS else by_sql(corpus))
        part.rename(path)
    return np.load(path)


def by_brute_force(corpus: Path, *, threshold: float = THRESHOLD, chunk: int = 500) -> np.ndarray:
    """Compare all pairs of texts."""
    import pyarrow.parquet as pq
    from scipy.sparse import csr_matrix

    numbers: dict[tuple[str, ...], int] = {}
    rows = [
        sorted(numbers.setdefault(run, len(numbers)) for run in shingles(text))
        for text in pq.read_table(corpus, columns=["text"])["text"].to_pylist()
    ]
    sizes = np.array([len(row) for row in rows])
    pointers = np.concatenate([[0], np.cumsum(sizes)])
    values = np.ones(pointers[-1], dtype=np.int32)
    matrix = csr_matrix((values, np.concatenate(rows), pointers), shape=(len(rows), len(numbers)))
    columns = matrix.T.tocsr()
    labels = np.arange(len(rows))
    for start in range(0, len(rows), chunk):
        shared = (matrix[start : start + chunk] @ columns).tocoo()
        one, two, common = shared.row + start, shared.col, shared.data
        similar = (common >= threshold * (sizes[one] + sizes[two] - common) - _SLACK) & (one != two)
        labels = connected(len(rows), [(np.arange(len(rows)), labels), (one[similar], two[similar])])
    return labels


def by_sql(corpus: Path, *, threshold: float = THRESHOLD) -> np.ndarray:
    """Texts that share one of their rarest shingles are candidates; each is compared exactly.

    Source: Chaudhuri, Ganti, Kaushik, "A primitive operator for similarity joins in data cleaning", ICDE 2006.
    """
    import duckdb

    with duckdb.connect(config={"memory_limit": "10GB", "temp_directory": str(corpus.parent / "spill")}) as con:
        con.execute(f"""
            CREATE TABLE sets AS WITH words AS (
                SELECT id, list_transform(regexp_extract_all(lower(text), '\\w+'), lambda word: hash(word)) AS words
                FROM read_parquet('{corpus}'))
            SELECT id, list_distinct(list_transform(range(1, greatest(len(words) - 1, 2)),
                                                    lambda i: hash(words[i:i + 2]))) AS shingles FROM words""")
        con.execute("""
            CREATE TABLE shared AS SELECT shingle, count(*) AS n_texts
            FROM (SELECT unnest(shingles) AS shingle FROM sets) GROUP BY shingle HAVING count(*) > 1""")
        con.execute(f"""
            CREATE TABLE prefixes AS
            WITH single AS (SELECT id, len(shingles) AS n, unnest(shingles) AS shingle FROM sets),
            ranked AS (
                SELECT id, n, shingle, row_number() OVER (PARTITION BY id ORDER BY n_texts, shingle) AS rank,
                       count(*) OVER (PARTITION BY id) AS n_shared
                FROM single JOIN shared USING (shingle))
            SELECT id, n, shingle FROM ranked
            WHERE rank <= (n - ceil({threshold} * n - {_SLACK}) + 1) - (n - n_shared)""")
        con.execute("DROP TABLE shared")
        pairs = con.sql(f"""
            WITH candidates AS (
                SELECT DISTINCT a.id AS one, b.id AS two FROM prefixes a JOIN prefixes b
                ON a.shingle = b.shingle AND a.id < b.id
                AND b.n >= {threshold} * a.n - {_SLACK} AND a.n >= {threshold} * b.n - {_SLACK}),
            compared AS (
                SELECT one, two, len(list_intersect(a.shingles, b.shingles)) AS common,
                       len(a.shingles) + len(b.shingles) AS total
                FROM candidates JOIN sets a ON a.id = one JOIN sets b ON b.id = two)
            SELECT one, two FROM compared WHERE common >= {threshold} * (total - common) - {_SLACK}""")
        table = pairs.to_arrow_table()
        n = con.execute("SELECT count(*) FROM sets").fetchall()[0][0]
    return connected(n, [(np.array(table["one"]), np.array(table["two"]))])


def connected(n: int, edges: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Each vertex's component, named by its smallest vertex."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    one, two = (np.concatenate(side) for side in zip(*edges, strict=True))
    graph = coo_matrix((np.ones(len(one), dtype=np.int8), (one, two)), shape=(n, n))
    count, component = connected_components(graph, directed=False)
    smallest = np.full(count, n)
    np.minimum.at(smallest, component, np.arange(n))
    return smallest[component]
