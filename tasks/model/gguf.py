"""Read a GGUF file: its metadata and its tensors, dequantised to float32.

It knows nothing of models: names and shapes come out as they stand in the file. Called by tasks/model/convert.py.
The bytes are not trusted: every count and offset is checked against the size of the file.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (container) and ggml-common.h (block layouts).
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from schemas.errors import DataError

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MAX_DIMENSIONS = 8
_BLOCK = 32
"""Weights that share a scale in the quantised types."""

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class GgufTensor:
    """Where one tensor lies. `shape` is row-major (outermost first), as numpy and torch count."""

    name: str
    shape: tuple[int, ...]
    type_id: int
    offset: int
    """Bytes from the start of the file."""

    @property
    def n_weights(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)  # numpy would wrap around


class GgufFile:
    """An open GGUF file; use it in a `with` statement.

    Raises:
        DataError: not a GGUF of version 2 or 3, or cut short.
    """

    metadata: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with path.open("rb") as stream:
                self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            self._read_header()
        except (OSError, ValueError, struct.error, KeyError, OverflowError, TypeError) as error:
            raise DataError(
                f"not a readable GGUF file: {type(error).__name__}", code="TG0310", where=str(path)
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._map.close()

    def dequantise(self, name: str) -> Floats:
        """The tensor as float32, shape as in the file; bit-identical to what `gguf.quants.dequantize` gives.

        Raises:
            DataError: a quantisation this reader does not know, or data beyond the end of the file.
        """
        tensor = self.tensors[name]
        if tensor.type_id not in _TYPES:
            known = ", ".join(kind.name for kind in _TYPES.values())
            raise DataError(
                f"tensor {name} has ggml type {tensor.type_id}; readable are {known}",
                code="TG0311",
                where=str(self._path),
                hint="take a less exotic quantisation, or the safetensors of the model",
            )
        kind = _TYPES[tensor.type_id]
        if tensor.n_weights % kind.block:
            raise DataError(f"tensor {name} is no whole number of blocks", code="TG0310", where=str(self._path))
        n_bytes = tensor.n_weights // kind.block * kind.n_bytes
        if tensor.offset + n_bytes > len(self._map):
            raise DataError(f"tensor {name} ends beyond the file", code="TG0310", where=str(self._path))
        # The copy lets the map be closed; blocks are small beside their float32 form.
        raw = np.frombuffer(self._map, np.uint8, n_bytes, tensor.offset).copy().reshape(-1, kind.n_bytes)
        try:
            return kind.decode(raw).reshape(tensor.shape)
        except (ValueError, OverflowError):  # no weights, and dimensions that no array can have
            raise DataError(f"tensor {name} has no possible shape", code="TG0310", where=str(self._path)) from None

    def _read_header(self) -> None:
        magic, version, n_tensors, n_pairs = struct.unpack_from("<4sIQQ", self._map, 0)
        if magic != b"GGUF" or version not in (2, 3):
            raise ValueError("no GGUF of version 2 or 3")
        self._at = 24
        metadata = {}
        for _ in range(n_pairs):
            key = self._string()
            metadata[key] = self._value(self._number("I"))
        described = [self._describe() for _ in range(n_tensors)]
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1:
            raise ValueError("impossible alignment")
        start = -(-self._at // alignment) * alignment
        self.metadata = metadata
        self.tensors = {name: GgufTensor(name, shape, kind, start + at) for name, shape, kind, at in described}

    def _describe(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._string()
        n_dimensions = self._number("I")
        if n_dimensions > _MAX_DIMENSIONS:
            raise ValueError("too many dimensions")
        # ggml counts the innermost dimension first.
        shape = tuple(self._number("Q") for _ in range(n_dimensions))[::-1]
        return name, shape, self._number("I"), self._number("Q")

    def _number(self, code: str) -> Any:
        (value,) = struct.unpack_from(f"<{code}", self._map, self._at)
        self._at += struct.calcsize(code)
        return value

    def _string(self) -> str:
        length = self._number("Q")
        if self._at + length > len(self._map):
            raise ValueError("text beyond the end of the file")
        value = self._map[self._at : self._at + length].decode()
        self._at += length
        return value

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._number(_SCALARS[kind])
        inner, length = self._number("I"), self._number("Q")
        if inner == _ARRAY or length > len(self._map):
            raise ValueError("nested or impossible array")
        if inner == _STRING:
            return [self._string() for _ in range(length)]
        code = f"<{length}{_SCALARS[inner]}"
        values = list(struct.unpack_from(code, self._map, self._at))
        self._at += struct.calcsize(code)
        return values


def _half(raw: Bytes) -> Floats:
    return np.ascontiguousarray(raw).view(np.float16).astype(np.float32)


def _f32(raw: Bytes) -> Floats:
    return raw.view(np.float32)


def _bf16(raw: Bytes) -> Floats:
    return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def _q8_0(raw: Bytes) -> Floats:
    """Weight = scale * q; one float16 scale, then 32 signed bytes."""
    return _half(raw[:, :2]) * raw[:, 2:].view(np.int8).astype(np.float32)


def _nibbles(raw: Bytes) -> Bytes:
    """The low halves of all 16 bytes, then the high halves."""
    return np.concatenate([raw & 15, raw >> 4], axis=1)


def _q4_0(raw: Bytes) -> Floats:
    """Weight = scale * (q - 8); one float16 scale, then 16 bytes."""
    return _half(raw[:, :2]) * (_nibbles(raw[:, 2:]).astype(np.int8) - np.int8(8)).astype(np.float32)


def _q4_1(raw: Bytes) -> Floats:
    """Weight = scale * q + minimum; float16 scale and minimum, then 16 bytes."""
    return _half(raw[:, :2]) * _nibbles(raw[:, 4:]).astype(np.float32) + _half(raw[:, 2:4])


@dataclass(frozen=True)
class _Kind:
    name: str
    block: int
    n_bytes: int
    """Bytes of one block."""
    decode: Callable[[Bytes], Floats]


_TYPES = {
    0: _Kind("F32", 1, 4, _f32),
    1: _Kind("F16", 1, 2, _half),
    2: _Kind("Q4_0", _BLOCK, 18, _q4_0),
    3: _Kind("Q4_1", _BLOCK, 20, _q4_1),
    8: _Kind("Q8_0", _BLOCK, 34, _q8_0),
    30: _Kind("BF16", 1, 2, _bf16),
}
"""ggml type number -> how its blocks are laid out."""
