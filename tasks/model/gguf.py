"""Read a GGUF file: its metadata and its tensors, dequantised to float32.

Names and shapes are those of the file. The package `gguf` dequantises blocks. This module reads the container itself:
`gguf.GGUFReader` trusts a file's counts and offsets, but the file may come from anywhere, so each is first checked
against the file's size.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (container).
"""

import math
import mmap
import struct
from collections.abc import Mapping
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

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class GgufTensor:
    """Location of one tensor. `shape` is row-major (outermost first), as in numpy and torch."""

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
        DataError: not a GGUF file of version 2 or 3, or truncated.
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
        """The tensor as float32, with the file's shape.

        Raises:
            DataError: TG0310, the package `gguf` does not support the quantisation, or the data exceed the file.
        """
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
        from gguf.quants import dequantize

        tensor = self.tensors[name]
        try:
            kind = GGMLQuantizationType(tensor.type_id)
            block, block_bytes = GGML_QUANT_SIZES[kind]
        except (ValueError, KeyError):
            raise self._unsupported(tensor, f"ggml type {tensor.type_id}") from None
        # ggml's blocks never cross a row.
        n_columns = tensor.shape[-1] if tensor.shape else 1
        if n_columns % block:
            raise DataError(f"tensor {name} is not a whole number of blocks", code="TG0310", where=str(self._path))
        n_bytes = tensor.n_weights // block * block_bytes
        if tensor.offset + n_bytes > len(self._map):
            raise DataError(f"tensor {name} ends beyond the file", code="TG0310", where=str(self._path))
        # Copy, so that the map can be closed; blocks are small compared with their float32 form.
        raw = np.frombuffer(self._map, np.uint8, n_bytes, tensor.offset).copy()
        try:
            rows = raw.reshape(-1, n_columns // block * block_bytes)
            weights: Floats = dequantize(rows, kind).reshape(tensor.shape)
        except NotImplementedError:
            raise self._unsupported(tensor, kind.name) from None
        except (ValueError, OverflowError):  # no weights, or dimensions that no array can have
            raise DataError(f"tensor {name} has an impossible shape", code="TG0310", where=str(self._path)) from None
        return weights

    def _unsupported(self, tensor: GgufTensor, kind: str) -> DataError:
        return DataError(
            f"tensor {tensor.name} is stored as {kind}, which the package `gguf` does not support",
            code="TG0310",
            where=str(self._path),
            hint="use a more common quantisation such as Q4_1 or Q8_0, or the model's safetensors",
        )

    def _read_header(self) -> None:
        magic, version, n_tensors, n_pairs = struct.unpack_from("<4sIQQ", self._map, 0)
        if magic != b"GGUF" or version not in (2, 3):
            raise ValueError("not a GGUF file of version 2 or 3")
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
