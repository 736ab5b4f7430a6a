"""Logs of Inspect (`inspect eval`): `.json`, and `.eval`, a zip of the same, its parts compressed by Zstandard."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from tasks.results.rows import ItemResult, as_number, as_text, objects, refuse

MAX_BYTES = 1 << 30
"""Of a log when unpacked."""
_ZSTANDARD = 93
_GRADES = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}
"""Inspect's own values: correct, incorrect, partial, no answer."""


def is_inspect(log: Mapping[str, Any]) -> bool:
    return "samples" in log and isinstance(log.get("eval"), dict) and "task" in log["eval"]


def read_eval(path: Path) -> dict[str, Any]:
    """The log of an `.eval` file, in the form of the `.json`.

    Raises:
        DataError: TG0262, it is damaged, too large, or was not finished.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            if sum(info.file_size for info in infos) > MAX_BYTES:
                raise refuse(path, f"the log has more than {MAX_BYTES >> 20} MiB")
            header = next((info for info in infos if info.filename == "header.json"), None)
            if header is None:
                raise refuse(path, "the log has no header.json: the evaluation was not finished")
            log: dict[str, Any] = orjson.loads(_part(path, archive, header))
            log["samples"] = [
                orjson.loads(_part(path, archive, info))
                for info in infos
                if info.filename.startswith("samples/") and info.filename.endswith(".json")
            ]
    except (zipfile.BadZipFile, orjson.JSONDecodeError, OSError, NotImplementedError) as error:
        raise refuse(path, f"the log cannot be read ({type(error).__name__})") from None
    return log


def _part(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    if info.compress_type != _ZSTANDARD:
        return archive.read(info)
    import pyarrow as pa

    with path.open("rb") as stream:  # zipfile of Python 3.11 to 3.13 knows no Zstandard
        stream.seek(info.header_offset)
        head = stream.read(30)
        stream.seek(int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little"), 1)
        packed = stream.read(info.compress_size)
    with pa.CompressedInputStream(pa.BufferReader(packed), "zstd") as unpacked:
        content = bytes(unpacked.read(info.file_size))
    if zlib.crc32(content) != info.CRC:
        raise zipfile.BadZipFile(info.filename)
    return content


def rows_of(path: Path, log: Mapping[str, Any]) -> Iterator[ItemResult]:
    """Yield each sample of each epoch; a score with several values has a metric for each, `scorer/value`.

    Raises:
        DataError: TG0262, the evaluation did not succeed, or a sample has an error or no scores.
    """
    if log.get("status") != "success":
        raise refuse(path, f"the evaluation ended with status {log.get('status')!r}", "run `inspect eval-retry`")
    for sample in objects(log["samples"]):
        item_id = as_text(sample.get("id")) or ""
        scores = sample.get("scores")
        if sample.get("error") or not isinstance(scores, dict) or not scores:
            raise refuse(path, f"sample {item_id} has an error or no scores", "run `inspect eval-retry`")
        values: dict[str, float] = {}
        for name, score in scores.items():
            value = score.get("value") if isinstance(score, dict) else None
            parts = {f"{name}/{key}": each for key, each in value.items()} if isinstance(value, dict) else {name: value}
            values |= {key: number for key, each in parts.items() if (number := _grade(each)) is not None}
        metadata = sample.get("metadata")
        yield ItemResult(
            item_id=item_id,
            values=values,
            prompt=as_text(_without_ids(sample.get("input"))),
            answer=as_text((sample.get("output") or {}).get("completion")),
            reference=as_text(sample.get("target")),
            columns={key: as_text(each) for key, each in metadata.items()} if isinstance(metadata, dict) else {},
            repeat=str(sample.get("epoch", "")),
        )


def _grade(value: Any) -> float | None:
    return _GRADES[value] if isinstance(value, str) and value in _GRADES else as_number(value)


def _without_ids(value: Any) -> Any:
    """The input without the ids of its messages, which are new in each log."""
    if not isinstance(value, list):
        return value
    return [{key: part for key, part in each.items() if key != "id"} for each in objects(value)]
