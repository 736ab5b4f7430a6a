"""Articles become passages that are redacted, decontaminated, found, and packed."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.artifacts import CorpusRef, RowCounts, Splits
from schemas.curation import DecontaminateSpec
from schemas.curation_steps import RedactStep
from schemas.errors import DataError
from schemas.evaluation import CorpusSpec
from tasks.corpus.articles import article_files, html_sections, markdown_sections, read_passages
from tasks.corpus.build import cite_for_tickets, fingerprint_corpus, read_corpus
from tasks.corpus.search import PassageIndex

NewFolder = Callable[[], Path]
QUESTION = "my blue garden lamp flickers twice whenever the neighbour opens his heavy wooden gate"
TICKETS = pa.schema([(name, pa.string()) for name in ("ticket_id", "subject", "body")])


@pytest.fixture
def splits(new_folder: NewFolder) -> Splits:
    root = new_folder()
    bodies = {"train": "the parcel is late", "validation": "nothing here fits", "test": QUESTION}
    for part, body in bodies.items():
        rows = [{"ticket_id": part, "subject": None, "body": body}]
        pq.write_table(pa.Table.from_pylist(rows, schema=TICKETS), root / f"{part}.parquet")
    return Splits(root=root, rows=RowCounts(n_in=3, n_out=3), n_train=1, n_validation=1, n_test=1)


def build(splits: Splits, root: Path, out: Path, *, embeddings: bool = False) -> CorpusRef:
    spec = CorpusSpec(paths=("help",), passage_words=40, n_passages=2, embeddings=embeddings)
    return read_corpus(
        out, corpus=spec, articles=fingerprint_corpus(spec, root), root=root, redact=(RedactStep(uses="redact"),),
        held_out=splits, decontaminate=DecontaminateSpec(),
    )  # fmt: skip


def write(root: Path, **files: str) -> None:
    (root / "help").mkdir(exist_ok=True)
    for name, text in files.items():
        (root / "help" / f"{name}.md").write_text(text)


@pytest.mark.parametrize("embeddings", [False, pytest.param(True, marks=pytest.mark.needs_extra("semantic"))])
@pytest.mark.needs_extra("corpus")
def test_passages_are_redacted_decontaminated_and_found(
    splits: Splits, tmp_path: Path, new_folder: NewFolder, embeddings: bool
) -> None:
    write(
        tmp_path,
        parcels="# Parcels\n\nA late parcel: write to help@shop.example.org.",
        lamps=f"# Lamps\n\nFrom a ticket: {QUESTION}. Answer: replace the fuse.",
    )
    corpus = build(splits, tmp_path, new_folder(), embeddings=embeddings)
    assert (corpus.n_articles, corpus.n_passages, corpus.n_dropped, corpus.n_redacted) == (2, 1, 1, 1)
    assert pq.read_table(corpus.root / "removed.parquet").to_pylist() == [
        {"passage_id": "help/lamps.md#1", "code": "leak_quote", "kept_id": "test"}
    ]
    cited = cite_for_tickets(new_folder(), splits=splits, corpus=corpus)
    (row,) = pq.read_table(cited.train).to_pylist()
    assert row["passages"] == "[help/parcels.md: Parcels]\nA late parcel: write to [EMAIL_1]."
    assert row["cited"] == ["help/parcels.md#1"]
    if not embeddings:
        assert pq.read_table(cited.validation).to_pylist()[0]["cited"] == []  # it shares no word


@pytest.mark.needs_extra("corpus")
def test_equal_articles_give_equal_bytes(splits: Splits, tmp_path: Path, new_folder: NewFolder) -> None:
    write(tmp_path, a="# One\n\nfirst text\n\n## Two\n\nsecond text", b="third text, zebra apple")
    one, two = (build(splits, tmp_path, new_folder()) for _ in range(2))
    names = sorted(path.name for path in one.root.iterdir())
    assert [(one.root / name).read_bytes() for name in names] == [(two.root / name).read_bytes() for name in names]


def test_every_word_of_an_article_is_in_one_passage_in_order(tmp_path: Path) -> None:
    words = [f"word{number}" for number in range(500)]
    text = ". ".join(" ".join(words[start : start + 45]) for start in range(0, 500, 45))
    write(tmp_path, long=f"# Title\n\n{text}\n\nshort end")
    spec = CorpusSpec(paths=("help",), passage_words=20)
    passages, _ = read_passages(spec, article_files(spec, tmp_path))
    assert " ".join(passage.text for passage in passages).replace(".", "").split() == [*words, "short", "end"]
    assert max(len(passage.text.split()) for passage in passages) <= 22


@pytest.mark.needs_extra("corpus")
def test_of_equally_good_passages_the_first_is_found(splits: Splits, tmp_path: Path, new_folder: NewFolder) -> None:
    write(tmp_path, **{f"n{number:02d}": "the same late parcel" for number in range(30)})
    corpus = build(splits, tmp_path, new_folder())
    index = PassageIndex(corpus.root, corpus.search)
    assert index.find("late parcel") == [0, 1]
    assert index.find("?!") == index.find("unheard") == []


def test_code_and_menus_do_not_make_headings() -> None:
    assert [part.headings for part in markdown_sections("# A\n\nx\n\n```\n# no\n```\n\nB\n===\n\ny")] == [
        ("A",),
        ("B",),
    ]
    page = "<body><nav>Home</nav><main><h2>A</h2><ul><li>one<li>two</ul><script>x()</script></main><p>foot</body>"
    assert [(part.headings, part.text) for part in html_sections(page)] == [(("A",), "- one\n\n- two")]
    assert html_sections("<!-- nothing -->") == []


@pytest.mark.parametrize(
    ("name", "content", "code", "message"),
    [
        ("a.md", b"\xff\xfe\x00", "TG0202", "the article is not UTF-8"),
        ("a.jsonl", b'{"title": "x", "content": "y"}\n', "TG0202", "no text|under 'body'; its keys: content, title"),
        ("a.jsonl", b"[1]\n", "TG0202", "not a JSON object"),
        ("a.txt", b"text", "TG0201", "has no article; read are files that end with .md"),
        ("a.md", b"# Only a heading\n", "TG0221", "no passage of 1 articles is left: they have no text"),
        ("a.md", QUESTION.encode(), "TG0221", "no passage of 1 articles is left: all of them hold held-out questions"),
    ],
)
def test_what_cannot_be_read_says_where(
    splits: Splits, tmp_path: Path, new_folder: NewFolder, name: str, content: bytes, code: str, message: str
) -> None:
    (tmp_path / "help").mkdir()
    (tmp_path / "help" / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        build(splits, tmp_path, new_folder())
    assert caught.value.code == code


def test_articles_that_change_during_a_run_are_refused(splits: Splits, tmp_path: Path, new_folder: NewFolder) -> None:
    write(tmp_path, a="some text")
    spec = CorpusSpec(paths=("help/*.md",))
    known = fingerprint_corpus(spec, tmp_path)
    write(tmp_path, a="other text")
    with pytest.raises(DataError, match="TG0203"):
        read_corpus(
            new_folder(), corpus=spec, articles=known, root=tmp_path, redact=(), held_out=splits,
            decontaminate=DecontaminateSpec(),
        )  # fmt: skip
