"""A `Spread` in this process: runs parts one after the other and passes held objects through pickle.

Arrays are read-only, like those in Ray's object store, so work that writes into its inputs fails here too.
"""

import pickle
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class Held:
    """A handle."""

    def __init__(self, thing: Any) -> None:
        self._buffers: list[pickle.PickleBuffer] = []
        self._pickled = pickle.dumps(thing, protocol=5, buffer_callback=self._buffers.append)

    def thing(self) -> Any:
        """The object as another process would get it."""
        copies = [bytes(buffer.raw()) for buffer in self._buffers]
        return pickle.loads(self._pickled, buffers=copies)  # noqa: S301


class PlainSpread:
    def __init__(self, n_parts: int) -> None:
        self.n_parts = n_parts
        self.n_done = 0

    def share(self, path: Path) -> str:
        return str(path)

    def each(self, work: Callable[..., T], parts: Iterable[tuple[Any, ...]]) -> Iterator[T]:
        for part in parts:
            self.n_done += 1
            result = work(*(thing.thing() if isinstance(thing, Held) else Held(thing).thing() for thing in part))
            yield Held(result).thing()

    def hold(
        self, work: Callable[..., tuple[Any, ...]], parts: Iterable[tuple[Any, ...]], *, n_outputs: int
    ) -> list[tuple[Any, ...]]:
        handles = []
        for outputs in self.each(work, parts):
            assert len(outputs) == n_outputs
            handles.append(tuple(Held(output) for output in outputs))
        return handles
