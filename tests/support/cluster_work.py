"""Work that tests send to workers: module-level functions, like those of steps."""

import os
import time

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


def refuse(number: int) -> int:
    if number == 3:
        raise DataError("three is refused", code="TG0250", where="a test", hint="take another")
    return number


def vanish(number: int) -> int:
    os._exit(number)


def break_down(number: int) -> int:
    raise KeyError(number)
