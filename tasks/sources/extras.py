"""The packages that only some kinds of source need: is the one of this kind there?

Called by the kinds of source that have an extra, before they import its package.
"""

from __future__ import annotations

from importlib import util

from schemas.errors import ConfigError


def need_package(package: str, *, kind: str) -> None:
    """Refuse a kind of source whose package is not installed; the extra bears the kind's name.

    Raises:
        ConfigError: TG0112.
    """
    if util.find_spec(package) is None:
        raise ConfigError(
            f"`source.kind: {kind}` needs {package}, which is not installed",
            code="TG0112",
            where="source.kind",
            hint=f"make install, or `uv sync --extra {kind}`",
        )
