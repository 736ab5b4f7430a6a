"""Iceberg tables as other engines write them: with position deletes, equality deletes and old snapshots.

pyiceberg cannot write such deletes, so their files, manifests and metadata are built here from the specification; the
DuckDB extension of another version reads them the same way.
"""

import json
import sqlite3
import struct
import zlib
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("pyiceberg")  # the tests that import this module skip without it

from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestWriterV2,
    write_manifest_list,
)
from pyiceberg.table import Table
from pyiceberg.typedef import Record
from pyroaring import BitMap

SCHEMA = pa.schema([
    ("ticket_id", pa.string()), ("customer_id", pa.string()), ("question", pa.string()), ("reply", pa.string()),
    ("created_at", pa.timestamp("us", tz="UTC")),
])  # fmt: skip
NAME = "support.tickets"
_POSITION = pa.schema(
    [
        pa.field("file_path", pa.string(), nullable=False, metadata={"PARQUET:field_id": "2147483546"}),
        pa.field("pos", pa.int64(), nullable=False, metadata={"PARQUET:field_id": "2147483545"}),
    ]
)


class _Deletes(ManifestWriterV2):
    def content(self) -> ManifestContent:
        return ManifestContent.DELETES

    @property
    def _meta(self) -> dict[str, str]:
        return {**super()._meta, "content": "deletes"}


class Lake:
    """A SQL catalog with one table of tickets."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.database = folder, folder / "catalog.db"
        self._catalog = SqlCatalog("lake", uri=f"sqlite:///{self.database}", warehouse=f"file://{folder}/warehouse")
        self._catalog.create_namespace("support")
        self._catalog.create_table(NAME, SCHEMA, properties={"format-version": "2"})

    def close(self) -> None:
        self._catalog.close()

    @property
    def table(self) -> Table:
        return self._catalog.load_table(NAME)

    @property
    def root(self) -> Path:
        return Path(self.table.location().removeprefix("file://"))

    @property
    def metadata(self) -> Path:
        return Path(self.table.metadata_location.removeprefix("file://"))

    @property
    def snapshot_id(self) -> int:
        snapshot = self.table.current_snapshot()
        assert snapshot is not None
        return snapshot.snapshot_id

    def append(self, numbers: Iterable[int], text: str = "question") -> str:
        """Append a data file and return its path."""
        before = set(self.data_files())
        rows = [
            {"ticket_id": f"t{n}", "customer_id": f"c{n % 3}", "question": f"{text} {n}", "reply": f"answer {n}",
             "created_at": 1_780_315_200_000_000 + n}
            for n in numbers
        ]  # fmt: skip
        columns = {name: [row[name] for row in rows] for name in SCHEMA.names}
        self.table.append(pa.table(columns, schema=SCHEMA))
        (path,) = set(self.data_files()) - before
        return path

    def data_files(self) -> list[str]:
        return [task.file.file_path for task in self.table.scan().plan_files()] if self.table.snapshots() else []

    def delete_positions(self, places: Mapping[str, Iterable[int]]) -> None:
        """Commit a file of position deletes."""
        rows = sorted((path, place) for path, some in places.items() for place in some)
        found = pa.table(
            {"file_path": [path for path, _ in rows], "pos": [place for _, place in rows]}, schema=_POSITION
        )
        self._commit(found, DataFileContent.POSITION_DELETES)

    def delete_by_vector(self, places: Mapping[str, Iterable[int]]) -> Path:
        """Commit deletion vectors in one Puffin file."""
        content, blobs = b"PFA1", []
        for path, some in places.items():
            bits = BitMap(some)
            vector = bytes.fromhex("d1d33964") + struct.pack("<Q", 1) + struct.pack("<I", 0) + bits.serialize()
            blob = struct.pack(">I", len(vector)) + vector + struct.pack(">I", zlib.crc32(vector))
            blobs.append({
                "type": "deletion-vector-v1", "fields": [2147483645], "snapshot-id": -1, "sequence-number": -1,
                "offset": len(content), "length": len(blob),
                "properties": {"referenced-data-file": path, "cardinality": str(len(bits))},
            })  # fmt: skip
            content += blob
        footer = json.dumps({"blobs": blobs}).encode()
        content += b"PFA1" + footer + struct.pack("<I", len(footer)) + bytes(4) + b"PFA1"
        return self._commit(content, DataFileContent.POSITION_DELETES)

    def delete_equal(self, column: str, values: list[str]) -> None:
        """Commit a file of equality deletes."""
        number = self.table.schema().find_field(column).field_id
        field = pa.field(column, pa.string(), metadata={"PARQUET:field_id": str(number)})
        found = pa.table({column: values}, schema=pa.schema([field]))
        self._commit(found, DataFileContent.EQUALITY_DELETES, equality_ids=[number])

    def _commit(self, deletes: pa.Table | bytes, content: DataFileContent, **more: Any) -> Path:
        table, files = self.table, PyArrowFileIO()
        metadata = json.loads(self.metadata.read_text())
        sequence, snapshot = metadata["last-sequence-number"] + 1, 1000 + metadata["last-sequence-number"]
        in_table = isinstance(deletes, pa.Table)
        path = self.root / "data" / f"delete-{sequence}.{'parquet' if in_table else 'puffin'}"
        if isinstance(deletes, bytes):
            path.write_bytes(deletes)
        else:
            pq.write_table(deletes, path, write_page_checksum=True)
        form = FileFormat.PARQUET if in_table else FileFormat.PUFFIN
        data_file = DataFile.from_args(
            content=content, file_path=f"file://{path}", file_format=form,
            partition=Record(), record_count=len(deletes), file_size_in_bytes=path.stat().st_size, **more,
        )  # fmt: skip
        data_file.spec_id = table.spec().spec_id
        manifest = files.new_output(f"file://{self.root}/metadata/deletes-{sequence}.avro")
        with _Deletes(table.spec(), table.schema(), manifest, snapshot, "null") as writer:
            writer.add(ManifestEntry.from_args(status=ManifestEntryStatus.ADDED, data_file=data_file))
        current = table.current_snapshot()
        assert current is not None
        listed = files.new_output(f"file://{self.root}/metadata/snap-{snapshot}.avro")
        with write_manifest_list(2, listed, snapshot, current.snapshot_id, sequence, "null") as lister:
            lister.add_manifests([*current.manifests(table.io), writer.to_manifest_file()])
        metadata["snapshots"].append({
            "snapshot-id": snapshot, "parent-snapshot-id": current.snapshot_id, "sequence-number": sequence,
            "timestamp-ms": metadata["last-updated-ms"] + 1, "manifest-list": listed.location, "schema-id": 0,
            "summary": {"operation": "delete"},
        })  # fmt: skip
        metadata |= {"current-snapshot-id": snapshot, "last-sequence-number": sequence}
        metadata["last-updated-ms"] += 1
        metadata["refs"]["main"]["snapshot-id"] = snapshot
        self.publish(metadata)
        return path

    def publish(self, metadata: dict[str, Any]) -> Path:
        """Make this the table's metadata, and register it in the catalog."""
        name = f"{metadata['last-sequence-number']:05d}-{len(metadata['snapshots'])}.metadata.json"
        path = self.root / "metadata" / name
        path.write_text(json.dumps(metadata))
        with closing(sqlite3.connect(self.database)) as connection, connection:
            connection.execute("UPDATE iceberg_tables SET metadata_location = ?", [f"file://{path}"])
        return path
