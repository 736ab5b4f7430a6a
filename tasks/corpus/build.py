"""The steps of a corpus: read, redact and decontaminate the articles, index them, and cite them for tickets.

A champion is served, and therefore judged, with its own index.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.artifacts import BundleRef, CorpusRef, EvalSet, RowCounts, Splits
from schemas.curation import DecontaminateSpec
from schemas.curation_steps import RedactStep
from schemas.errors import DataError, TunegateError
from schemas.evaluation import CorpusSpec
from schemas.release import ServingSpec
from tasks.corpus.articles import Passage, article_files, read_passages
from tasks.corpus.search import PassageIndex, question_of, write_index
from tasks.curate.leaks import find_leaks
from tasks.curate.redact import redact_strings
from tasks.curate.similarity.semantic import check_extra
from tasks.extras import need_extra
from tasks.step import as_step
from tasks.storage.files import sha256_file, sha256_json

WHERE = "evaluate.corpus"
PARTS = ("train", "validation", "test")
LIBRARIES = ("bm25s", "numpy", "pyarrow")


def fingerprint_corpus(corpus: CorpusSpec, root: Path) -> str:
    """Digest of the articles' names and bytes.

    Raises:
        DataError, ConfigError, SecurityError: as `article_files`.
    """
    return sha256_json([[file.name, sha256_file(file.path)] for file in article_files(corpus, root)])


def corpus_faults(corpus: CorpusSpec | None, root: Path) -> Iterator[TunegateError]:
    """Yield why the articles cannot be read, for `tunegate validate`."""
    if corpus is None:
        return
    try:
        need_extra("corpus", what=f"`{WHERE}`", where=WHERE)
        if corpus.embeddings:
            check_extra(f"{WHERE}.embeddings")
        read_passages(corpus, article_files(corpus, root))
    except TunegateError as error:
        yield error


@as_step(
    "corpus",
    libraries=(*LIBRARIES, "duckdb", "lxml", "markdown-it-py", "numba", "phonenumbers", "python-stdnum", "scipy"),
    context=("root",),
)
def read_corpus(
    out: Path,
    *,
    corpus: CorpusSpec,
    articles: str,
    root: Path,
    redact: tuple[RedactStep, ...],
    held_out: Splits,
    decontaminate: DecontaminateSpec,
) -> CorpusRef:
    """Write the passages that do not hold a held-out question, redacted like tickets, and their index.

    A passage is compared with the held-out questions as a train ticket is: its heading as subject, its text as body.

    Args:
        articles: From `fingerprint_corpus`.
        redact: The pipeline's redactions, in order.
        held_out: Its test part is compared.

    Raises:
        DataError: TG0202, an article cannot be read; TG0203, the articles changed since the run began;
            TG0221, no passage is left.
    """
    if corpus.embeddings:
        check_extra(f"{WHERE}.embeddings")
    passages, n_articles = read_passages(corpus, article_files(corpus, root))
    if fingerprint_corpus(corpus, root) != articles:
        raise DataError(
            "the articles changed while they were read, or since the run began", code="TG0203", where=WHERE,
            hint="run again",
        )  # fmt: skip
    table = passage_table(passages)
    n_redacted = 0
    for step in redact:
        before = table
        for name in ("heading", "text"):
            texts, _ = redact_strings(table[name].combine_chunks(), step)
            table = table.set_column(table.column_names.index(name), name, pa.chunked_array([texts]))
        n_redacted += sum(a != b for a, b in zip(before.to_pylist(), table.to_pylist(), strict=True))
    leaks = _leaks(table, held_out.test, decontaminate, out) if table.num_rows else {}
    kept = [row for row in table.to_pylist() if row["passage_id"] not in leaks]
    if not kept:
        why = "all of them hold held-out questions" if leaks else "they have no text"
        raise DataError(
            f"no passage of {n_articles} articles is left: {why}", code="TG0221", where=WHERE,
            hint="name folders of help articles, not of tickets",
        )  # fmt: skip
    write_index(pa.Table.from_pylist(kept, schema=table.schema), corpus.search(), out)
    removed = [{"passage_id": name, "code": code, "kept_id": other} for name, (code, other) in sorted(leaks.items())]
    text = pa.string()
    schema = pa.schema([("passage_id", text), ("code", text), ("kept_id", text)])
    pq.write_table(pa.Table.from_pylist(removed, schema=schema), out / "removed.parquet")
    return CorpusRef(
        root=out, search=corpus.search(), n_articles=n_articles, n_passages=len(kept), n_dropped=len(leaks),
        n_redacted=n_redacted,
    )  # fmt: skip


def passage_table(passages: Iterable[Passage]) -> pa.Table:
    """The columns passage_id, source, heading and text; an id is the source with the passage's number in it."""
    numbers: dict[str, int] = {}
    rows = []
    for each in passages:
        numbers[each.source] = numbers.get(each.source, 0) + 1
        name = f"{each.source}#{numbers[each.source]}"
        rows.append({"passage_id": name, "source": each.source, "heading": each.heading, "text": each.text})
    names = ("passage_id", "source", "heading", "text")
    return pa.Table.from_pylist(rows, schema=pa.schema([(name, pa.string()) for name in names]))


def _leaks(table: pa.Table, held_out: Path, spec: DecontaminateSpec, out: Path) -> dict[str, tuple[str, str]]:
    """Passage -> rule and held-out ticket."""
    pool = out / "pool.parquet"
    columns = {"passage_id": "ticket_id", "heading": "subject", "text": "body"}
    pq.write_table(table.select(list(columns)).rename_columns(list(columns.values())), pool)
    try:
        found = find_leaks(pool=[pool], held_out=held_out, spec=spec).leaks
    finally:
        pool.unlink()
    return {leak.ticket_id: (leak.code, leak.kept_id) for leak in found}


@as_step("passages", libraries=LIBRARIES)
def cite_for_tickets(out: Path, *, splits: Splits, corpus: CorpusRef) -> Splits:
    """Write the splits with the passages that fit each ticket's subject and body, in the columns passages and cited."""
    cite = PassageIndex(corpus.root, corpus.search).cite
    for part in PARTS:
        _add_passages(getattr(splits, part), out / f"{part}.parquet", cite)
    n_rows = splits.n_train + splits.n_validation + splits.n_test
    return splits.model_copy(update={"root": out, "digest": "", "rows": RowCounts(n_in=n_rows, n_out=n_rows)})


@as_step("passages_as_served", libraries=LIBRARIES)
def cite_as_served(out: Path, *, items: EvalSet, bundle: BundleRef) -> EvalSet:
    """Write the held-out items with the passages that a model finds in the index of its own bundle."""
    serving = ServingSpec.model_validate_json((bundle.root / "serving.json").read_bytes())
    if serving.search is None:
        raise ValueError("a model whose prompt shows passages has no index in its bundle")
    _add_passages(items.root / "items.parquet", out / "items.parquet", PassageIndex(bundle.root, serving.search).cite)
    return items.model_copy(update={"root": out, "digest": ""})


def _add_passages(source: Path, target: Path, cite: Callable[[str], tuple[str, list[str]]]) -> None:
    table = pq.read_table(source)
    table = table.drop_columns([name for name in ("passages", "cited") if name in table.column_names])
    found = [cite(question_of(row)) for row in table.select(["subject", "body"]).to_pylist()]
    table = table.append_column("passages", pa.array([text for text, _ in found], pa.string()))
    table = table.append_column("cited", pa.array([ids for _, ids in found], pa.list_(pa.string())))
    pq.write_table(table, target, compression="zstd")
