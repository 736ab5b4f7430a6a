"""What the tests of graphs share with those of the engine."""

from __future__ import annotations

from tests.flows.engine.conftest import tree

__all__ = ["tree"]
