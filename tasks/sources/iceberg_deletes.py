"""Which rows of an Iceberg table's data files are deleted, read independently to verify what pyiceberg leaves out.

pyiceberg finds the deletes of a data file by the spelling of its path and does not notice a damaged list. Here paths
are normalised, and Parquet pages and deletion vectors are checked against their checksums. Called by `iceberg.py`.

Source: Apache Iceberg table specification, "Position Delete Files" and "Deletion Vectors"; Puffin file format.
"""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from schemas.errors import DataError

if TYPE_CHECKING:
    from pyiceberg.io import FileIO
    from pyiceberg.manifest import DataFile


class Deletes:
    """The deletes of one snapshot; each file is read once.

    Args:
        files: Opens the table's files.
    """

    def __init__(self, files: FileIO) -> None:
        self._files = files
        self._known: dict[str, dict[str, set[int]]] = {}

    def n_rows(self, data_file: DataFile, deletes: Iterable[DataFile]) -> int:
        """How many rows of a data file these deletes remove.

        Raises:
            DataError: TG0273, deletes in an unsupported format; TG0202, a deletion vector is damaged.
        """
        path, gone = plain_path(data_file.file_path), set[int]()
        for each in deletes:
            gone |= self._places(each).get(path, set())
        return len(gone)

    def _places(self, deletes: DataFile) -> dict[str, set[int]]:
        if deletes.file_path not in self._known:
            form = str(getattr(deletes.file_format, "value", deletes.file_format)).upper()
            read = {"PARQUET": self._of_parquet, "PUFFIN": self._of_puffin}.get(form)
            if read is None:
                raise inexact(f"it has deletes in {form} files")
            self._known[deletes.file_path] = read(deletes.file_path)
        return self._known[deletes.file_path]

    def _of_parquet(self, location: str) -> dict[str, set[int]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = ["file_path", "pos"]
        with self._files.new_input(location).open() as stream:
            found = pq.read_table(pa.PythonFile(stream, mode="r"), columns=columns, page_checksum_verification=True)
        places: dict[str, set[int]] = defaultdict(set)
        for path, place in zip(*(found[name].to_pylist() for name in columns), strict=True):
            places[path].add(place)
        merged: dict[str, set[int]] = defaultdict(set)
        for path, some in places.items():
            merged[plain_path(path)] |= some
        return merged

    def _of_puffin(self, location: str) -> dict[str, set[int]]:
        from pyiceberg.table.deletion_vector import deletion_vectors_from_puffin_file
        from pyiceberg.table.puffin import PuffinFile

        with self._files.new_input(location).open() as stream:
            file = PuffinFile(stream.read())
        for blob in file.footer.blobs:
            raw = file.get_blob_payload(blob)
            length = int.from_bytes(raw[:4], "big")
            if zlib.crc32(raw[4 : 4 + length]) != int.from_bytes(raw[4 + length : 8 + length], "big"):
                raise DataError("a deletion vector is damaged: its checksum does not match", code="TG0202")
        places: dict[str, set[int]] = defaultdict(set)
        for vector in deletion_vectors_from_puffin_file(file):
            places[plain_path(vector.referenced_data_file)] |= set(vector.to_vector().to_pylist())
        return places


def plain_path(location: str) -> str:
    """The path of a `file:` location, in one spelling.

    >>> plain_path("file:///a/b"), plain_path("file:/a/b"), plain_path("s3://a/b")
    ('/a/b', '/a/b', 's3://a/b')
    """
    return re.sub(r"^file:/+", "/", location)


def inexact(reason: str, *, where: str | None = None) -> DataError:
    """The error for a table whose deleted rows might be read."""
    return DataError(
        f"deleted rows of the table might be read: {reason}",
        code="TG0273",
        where=where,
        hint="have the engine that writes it apply deletes to the data files (rewrite_data_files, OPTIMIZE), then run",
    )
