"""`source.kind: hf`: a dataset of the Hugging Face hub at a commit, or a local directory in the same layout.

Nothing is downloaded unless the source allows it.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from schemas.errors import ConfigError, DataError, ServiceError
from schemas.source import HuggingFaceSource
from tasks.sources.formats import SourceFile, fingerprint_files
from tasks.sources.kind import Part, Place, SourceKind, need_package
from tasks.sources.readers.headers import check_header, did_you_mean, listing
from tasks.sources.readers.read_arrow import arrow_batches, parquet_batches
from tasks.sources.readers.records import BATCH_ROWS, RowBatch
from tasks.storage.files import sha256_json

_COMMIT = re.compile(r"[0-9a-f]{40}")


class Hub(SourceKind[HuggingFaceSource]):
    """A dataset of the hub, or a local directory in its layout."""

    spec = HuggingFaceSource

    def check(self, source: HuggingFaceSource) -> None:
        """Check that `datasets` is installed.

        Raises:
            ConfigError: TG0112, it is not.
        """
        need_package("hf")

    def describe(self, source: HuggingFaceSource) -> str:
        return source.path

    def fingerprint(self, source: HuggingFaceSource, place: Place) -> str:
        """Digest of names and bytes of a local directory; of a hub dataset its commit, without a download."""
        folder = local_dataset(source, root=place.root)
        if folder:
            paths = sorted(path for path in folder.rglob("*") if path.is_file())
            return fingerprint_files(SourceFile(path.relative_to(folder).as_posix(), path) for path in paths)
        return sha256_json({"path": source.path, "revision": source.revision, "split": source.split})

    def parts(self, source: HuggingFaceSource, place: Place) -> Iterator[Part]:
        yield Part(f"{source.path}:{source.split}", source.split, read_saved_dataset(source, root=place.root))


KIND = Hub()


def read_saved_dataset(source: HuggingFaceSource, *, root: Path) -> Iterator[RowBatch]:
    """Every row of the split, numbered from 1. Nothing is downloaded unless the source allows it.

    Raises:
        ConfigError: TG0130, a hub dataset without permission or commit, or no such split.
        DataError: TG0202, the directory is neither saved by `datasets` nor has Parquet files, or a file is damaged.
        ServiceError: TG0720, the hub does not answer, or offline mode is on.
    """
    folder = local_dataset(source, root=root)
    files = _parquet_files(source, folder) if folder else []
    if files:
        yield from arrow_batches(batch for path in files for batch in parquet_batches(path))
        return
    dataset = _from_disk(source, folder) if folder else load_from_hub(source)
    check_header(dataset.column_names, where=source.path)
    yield from arrow_batches(
        batch
        for table in dataset.with_format("arrow").iter(batch_size=BATCH_ROWS)
        for batch in table.to_batches(max_chunksize=BATCH_ROWS)
    )


def local_dataset(source: HuggingFaceSource, *, root: Path) -> Path | None:
    """The directory that the source names, or None for a dataset of the hub that may be downloaded.

    Raises:
        ConfigError: TG0130, it is neither a directory nor a hub dataset with permission and commit.
    """
    folder = root / Path(source.path).expanduser()
    if folder.is_dir():
        return folder
    if not source.allow_download:
        raise ConfigError(
            f"no directory {source.path!r}; the hub is used only with `allow_download: true`",
            code="TG0130",
            where=str(folder),
            hint="name a directory saved by `datasets`, or set `allow_download: true` and `revision`",
        )
    if source.revision is None or not _COMMIT.fullmatch(source.revision):
        raise ConfigError(
            f"a hub dataset needs `revision`, a commit sha of 40 hex digits; got {source.revision!r}",
            code="TG0130",
            where=source.path,
            hint=f"branches move: `tunegate pin {source.path}@{source.revision or 'main'} --dataset` finds the commit",
        )
    return None


def _parquet_files(source: HuggingFaceSource, folder: Path) -> list[Path]:
    """Files of the split in the hub's layout: `train-00000-of-00002.parquet`, `train/0.parquet`."""
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
            f"no Parquet file of split {split!r}; splits are: {listing(names)}",
            code="TG0130",
            where=str(folder),
            hint=did_you_mean(split, names) or "for files without splits use `kind: files` with a glob",
        )
    return found


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
                f"no split {source.split!r}; splits are: {listing(loaded)}",
                code="TG0130",
                where=str(folder),
                hint=did_you_mean(source.split, loaded),
            )
        loaded = loaded[source.split]
    return loaded


def load_from_hub(source: HuggingFaceSource) -> Any:
    """Download the split, or take it from the cache of `datasets`.

    Raises:
        DataError: TG0202, a file of it is damaged.
        ServiceError: TG0720, the hub does not answer, or offline mode is on.
    """
    import datasets
    import pyarrow.dataset
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # its own client

    try:
        builder = datasets.load_dataset_builder(source.path, revision=source.revision)
        if hasattr(builder.config, "fragment_scan_options"):  # of Parquet files
            checked = pyarrow.dataset.ParquetFragmentScanOptions(page_checksum_verification=True)
            builder.config.fragment_scan_options = checked
        builder.download_and_prepare()
        return builder.as_dataset(split=source.split)
    except datasets.exceptions.DatasetGenerationError as error:
        raise DataError(
            f"a file of the dataset is damaged: {str(error.__cause__ or error)[:200]}",
            code="TG0202",
            where=source.path,
            hint="download it again; if it stays so, its owner has to upload it again",
        ) from None
    except (httpx.HTTPError, OSError, ValueError, RuntimeError) as error:
        raise ServiceError(
            f"the hub dataset {source.path!r} was not downloaded: {type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}",
            code="TG0720",
            where=source.path,
            hint="check the name, the network and HF_HUB_OFFLINE",
        ) from None
