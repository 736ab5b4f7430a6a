"""A function that raises on some of what it is given, in the place of the real one."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

SECRET = "my secret text"
"""The exception's words: they may be seen nowhere."""


def raise_on(
    monkeypatch: pytest.MonkeyPatch,
    module: ModuleType,
    function: str,
    is_bad: Callable[[list[Any]], bool],
    error: type[Exception] = KeyError,
) -> None:
    """Have a module's function raise where its arguments are bad, and else do what it does."""
    real = getattr(module, function)

    def planted(*given: Any, **named: Any) -> Any:
        if is_bad([*given, *named.values()]):
            raise error(SECRET)
        return real(*given, **named)

    monkeypatch.setattr(module, function, planted)
