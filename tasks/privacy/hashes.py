"""Keyed hashes of customers and tickets: equal for equal ids, meaningless without the secret key."""

import hmac
from array import array
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

Kind = Literal["customer", "ticket"]


class KeyedHash:
    """Hashes with one key; each distinct id is hashed once.

    >>> KeyedHash(b"k" * 16).of("customer", "7") == KeyedHash(b"k" * 16).of("ticket", "7")
    False
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._known: dict[tuple[Kind, str], str] = {}

    @property
    def key_id(self) -> str:
        """Identifies the key without revealing it."""
        return hmac.digest(self._key, b"tunegate forget: which key", "sha256").hex()[:16]

    def of(self, kind: Kind, value: str) -> str:
        """The id's hash, 64 hexadecimal digits."""
        known = self._known.get((kind, value))
        if known is None:
            known = hmac.digest(self._key, f"{kind}\0{value}".encode(), "sha256").hex()
            self._known[kind, value] = known
        return known


def short(hashed: str) -> int:
    """The first 63 bits of a hash, as index files store it."""
    return int(hashed[:16], 16) >> 1


class Forgotten:
    """Forgotten customers, from the tombstones, or the customers of a request, whose names are known.

    Args:
        names: The customers in clear text, all or none: known names are found without hashing every id.
    """

    def __init__(
        self, hashes: KeyedHash, *, owners: Iterable[str], tickets: Iterable[str] = (), names: Iterable[str] = ()
    ) -> None:
        self.hashes = hashes
        self.names = frozenset(names)
        self.owners = frozenset(owners)
        self.tickets = frozenset(tickets)

    def __bool__(self) -> bool:
        return bool(self.owners or self.tickets)

    def is_gone(self, kind: Kind, value: str | None) -> bool:
        """Whether this customer, or the customer of this ticket, was forgotten."""
        wanted = self.owners if kind == "customer" else self.tickets
        return value is not None and bool(wanted) and self.hashes.of(kind, value) in wanted

    def gone(self, kind: Kind, ids: pa.ChunkedArray | pa.Array) -> list[str]:
        """The forgotten ones among the ids, each once; for customers it may include names that are not in `ids`."""
        if kind == "customer" and self.names:
            return sorted(self.names)
        return [value for value in pc.unique(ids).to_pylist() if self.is_gone(kind, value)]

    def mask(self, kind: Kind, ids: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
        """True for rows of forgotten ids; false for null."""
        return any_of(ids, self.gone(kind, ids))


def any_of(values: pa.ChunkedArray | pa.Array, wanted: Sequence[str] | Sequence[int]) -> Any:
    """True where a value is one of these; false for null."""
    return pc.is_in(values, value_set=_array(wanted, values.type), skip_nulls=True)


def _array(values: Sequence[str] | Sequence[int], type_: pa.DataType) -> pa.Array:
    """An Arrow array of the values, built from their bytes."""
    # `pyarrow.array` of Python objects imports pandas, which takes longer than everything else together.
    if not (pa.types.is_int64(type_) or pa.types.is_string(type_)):
        return pa.array(values, type_)
    if pa.types.is_int64(type_):
        return pa.Array.from_buffers(type_, len(values), [None, pa.py_buffer(array("q", values).tobytes())])
    texts = [str(value).encode() for value in values]
    offsets = array("i", [0, *accumulate(len(text) for text in texts)])
    buffers = [None, pa.py_buffer(offsets.tobytes()), pa.py_buffer(b"".join(texts))]
    return pa.Array.from_buffers(pa.string(), len(texts), buffers)
