"""Work that tests send to workers: module-level functions, like those of steps."""

import os
import time
from pathlib import Path

from schemas.errors import DataError


def square(number: int) -> int:
    return number * number


def slow_square(number: int, seconds: float) -> int:
    time.sleep(seconds)
    return number * number


def node_of(seconds: float) -> str:
    import ray

    time.sleep(seconds)
    return str(ray.get_runtime_context().get_node_id())


def halves(text: bytes) -> tuple[bytes, bytes]:
    middle = len(text) // 2
    return text[:middle], text[middle:]


def noted_halves(text: bytes, folder: str) -> tuple[bytes, bytes]:
    """Like `halves`, plus a file per call; slow enough that every node gets some."""
    time.sleep(0.3)
    (Path(folder) / f"{text[:1].decode()}-{os.getpid()}-{time.monotonic_ns()}").touch()
    return halves(text)


def join(*texts: bytes) -> bytes:
    return b"".join(texts)


def refuse(number: int) -> int:
    if number == 3:
        raise DataError("three is refused", code="TG0250", where="a test", hint="take another")
    return number


def vanish(number: int) -> int:
    os._exit(number)


def break_down(number: int) -> int:
    raise KeyError(number)
