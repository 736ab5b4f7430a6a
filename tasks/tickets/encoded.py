"""Read which tickets an encoded split has, without its tokens' meaning."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa


def encoded_ids(folder: Path) -> list[str]:
    """Ticket ids of an encoded split (a folder of Arrow files)."""
    return [name for batch in read_encoded(folder) for name in batch.column("ticket_id").to_pylist()]


def read_encoded(folder: Path) -> Iterator[Any]:
    """The record batches of an encoded split."""
    for path in sorted(folder.glob("*.arrow")):
        with pa.memory_map(str(path)) as source:
            yield from pa.ipc.open_stream(source)
