"""`source.kind: hf`: a dataset of the Hugging Face hub at a commit, or a local directory in its form.

It knows nothing of tickets. Nothing is fetched unless the source allows it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.errors import ConfigError, DataError, ServiceError
from schemas.source import HuggingFaceSource
from tasks.files import sha256_json
from tasks.sources.formats import SourceFile, fingerprint_files
from tasks.sources.kind import Part, Place, SourceKind
from tasks.sources.readers.headers import check_header, did_you_mean, listing
from tasks.sources.readers.read_arrow import arrow_batches
from tasks.sources.readers.records import BATCH_ROWS, Batch

if TYPE_CHECKING:
    import pyarrow as pa

_COMMIT = re.compile(r"[0-9a-f]{40}")


class Hub(SourceKind[HuggingFaceSource]):
    """A dataset as the hub keeps it."""

    spec = HuggingFaceSource

    def describe(self, source: HuggingFaceSource) -> str:
        """Name or directory."""
        return source.path

    def fingerprint(self, source: HuggingFaceSource, place: Place) -> str:
        """Of a local directory names and bytes; a dataset of the hub is known by its commit, so nothing is fetched."""
        folder = local_dataset(source, root=place.root)
        if folder:
            paths = sorted(path for path in folder.rglob("*") if path.is_file())
            return fingerprint_files(SourceFile(path.relative_to(folder).as_posix(), path) for path in paths)
        return sha256_json({"path": source.path, "revision": source.revision, "split": source.split})

    def parts(self, source: HuggingFaceSource, place: Place) -> Iterator[Part]:
        """The split."""
        yield Part(f"{source.path}:{source.split}", source.split, read_saved_dataset(source, root=place.root))


KIND = Hub()


def read_saved_dataset(source: HuggingFaceSource, *, root: Path) -> Iterator[Batch]:
    """Every row of the split, numbered from 1. Nothing is fetched unless the source allows it.

    Raises:
        ConfigError: TG0130, a hub dataset without permission or commit, or no such split.
        DataError: TG0202, the directory is neither one that `datasets` saved nor a dataset of Parquet files.
        ServiceError: TG0720, the hub does not answer, or offline mode forbids asking.
    """
    folder = local_dataset(source, root=root)
    files = _parquet_files(source, folder) if folder else []
    if files:
        yield from arrow_batches(_batches_of(files))
        return
    dataset = _from_disk(source, folder) if folder else _from_hub(source)
    check_header(dataset.column_names, where=source.path)
    yield from arrow_batches(
        batch
        for table in dataset.with_format("arrow").iter(batch_size=BATCH_ROWS)
        for batch in table.to_batches(max_chunksize=BATCH_ROWS)
    )


def local_dataset(source: HuggingFaceSource, *, root: Path) -> Path | None:
    """The directory the source names, or None for a dataset of the hub that may be fetched.

    Raises:
        ConfigError: TG0130, it is neither a directory nor a hub dataset with permission and commit.
    """
    folder = root / Path(source.path).expanduser()
    if folder.is_dir():
        return folder
    if not source.allow_download:
        raise ConfigError(
            f"no directory {source.path!r}, and nothing is fetched from the hub unless `allow_download` is true",
            code="TG0130",
            where=str(folder),
            hint="name a directory saved by `datasets`, or set `allow_download: true` and `revision`",
        )
    if source.revision is None or not _COMMIT.fullmatch(source.revision):
        raise ConfigError(
            f"a hub dataset needs `revision`, a commit sha of 40 hex digits; got {source.revision!r}",
            code="TG0130",
            where=source.path,
            hint="a branch or tag can move, a commit cannot; the dataset's page lists its commits",
        )
    return None


def _parquet_files(source: HuggingFaceSource, folder: Path) -> list[Path]:
    """Files of the split in a folder as the hub keeps datasets: `train-00000-of-00002.parquet`, `train/0.parquet`."""
    files = sorted(folder.rglob("*.parquet"))
    split = source.split
    found = [
        file
        for file in files
        if re.fullmatch(rf"{re.escape(split)}([-_.].*)?", file.stem) or split in file.relative_to(folder).parts[:-1]
    ]
    if files and not found:
        names = sorted({re.split(r"-\d", file.stem)[0] for file in files})
        raise ConfigError(
            f"no Parquet file of split {split!r}; there are: {listing(names)}",
            code="TG0130",
            where=str(folder),
            hint=did_you_mean(split, names) or "for files that are no split use `kind: files` with a glob",
        )
    return found


def _batches_of(files: Iterable[Path]) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in files:
        try:
            with pq.ParquetFile(path) as file:
                check_header(file.schema_arrow.names, where=str(path))
                yield from file.iter_batches(batch_size=BATCH_ROWS)
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"not readable as Parquet: {str(error).partition(chr(10))[0][:200]}", code="TG0202", where=str(path)
            ) from None


def _from_disk(source: HuggingFaceSource, folder: Path) -> Any:
    import datasets

    try:
        loaded = datasets.load_from_disk(str(folder))
    except (OSError, ValueError) as error:
        raise DataError(
            f"not a directory saved by `datasets`: {type(error).__name__}",
            code="TG0202",
            where=str(folder),
            hint="for a folder of CSV or JSONL files use `kind: files` with a glob",
        ) from None
    if isinstance(loaded, datasets.DatasetDict):
        if source.split not in loaded:
            raise ConfigError(
                f"no split {source.split!r}; there are: {listing(loaded)}",
                code="TG0130",
                where=str(folder),
                hint=did_you_mean(source.split, loaded),
            )
        loaded = loaded[source.split]
    return loaded


def _from_hub(source: HuggingFaceSource) -> Any:
    import datasets

    try:
        return datasets.load_dataset(source.path, revision=source.revision, split=source.split)
    except (OSError, ValueError, RuntimeError) as error:
        raise ServiceError(
            f"the hub dataset {source.path!r} was not fetched: {type(error).__name__}: {str(error)[:200]}",
            code="TG0720",
            where=source.path,
            hint="check the name, the network and HF_HUB_OFFLINE",
        ) from None
