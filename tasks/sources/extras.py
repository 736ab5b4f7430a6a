"""Optional packages of single kinds of source: checked before a kind imports its own."""

from __future__ import annotations

from importlib import util

from schemas.errors import ConfigError


def need_package(package: str, *, kind: str) -> None:
    """Check that the package of a kind of source is installed; the extra has the name of the kind.

    Raises:
        ConfigError: TG0112, it is not.
    """
    if util.find_spec(package) is None:
        raise ConfigError(
            f"`source.kind: {kind}` needs {package}, which is not installed",
            code="TG0112",
            where="source.kind",
            hint=f"make install, or `uv sync --extra {kind}`",
        )
