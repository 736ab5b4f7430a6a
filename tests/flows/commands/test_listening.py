"""`tunegate ui` as its users meet it: the real command, over a real workspace, in a real Chromium."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from flows.commands.listening import listen
from schemas.errors import ConfigError

if TYPE_CHECKING:
    pass

pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]


@pytest.mark.parametrize("port", [99_999, -1])
def test_a_number_that_is_no_port_is_refused_with_what_to_do(port: int) -> None:
    with pytest.raises(ConfigError, match="cannot listen on") as refused:
        listen("127.0.0.1", port)
    assert (refused.value.code, "--port" in (refused.value.hint or "")) == ("TG0193", True)
