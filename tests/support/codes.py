"""The error code that a call fails with."""

from collections.abc import Callable
from typing import Any

import pytest

from schemas.errors import TunegateError


def code_of(provoke: Callable[[], Any]) -> str:
    """Call the function, which must raise a TunegateError, and return the error's code."""
    with pytest.raises(TunegateError) as caught:
        provoke()
    return caught.value.code
