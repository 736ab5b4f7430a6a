"""Replaces a function by one that raises for some arguments."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

SECRET = "my secret text"
"""The exception's message, which must not appear anywhere."""


def raise_on(
    monkeypatch: pytest.MonkeyPatch,
    module: ModuleType,
    function: str,
    is_bad: Callable[[list[Any]], bool],
    error: type[Exception] = KeyError,
) -> None:
    """Make a module's function raise when `is_bad(arguments)`, and otherwise behave as before."""
    real = getattr(module, function)

    def planted(*given: Any, **named: Any) -> Any:
        if is_bad([*given, *named.values()]):
            raise error(SECRET)
        return real(*given, **named)

    monkeypatch.setattr(module, function, planted)
