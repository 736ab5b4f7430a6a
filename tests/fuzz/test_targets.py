"""Every target is counted, so that `make fuzz` divides its minutes among them."""

from __future__ import annotations

import importlib
from pathlib import Path

from tests.fuzz.fuzzing import N_TARGETS


def test_the_targets_are_counted() -> None:
    modules = [importlib.import_module(f"tests.fuzz.{path.stem}") for path in Path(__file__).parent.glob("test_*.py")]
    found = [name for module in modules for name, value in vars(module).items() if getattr(value, "fuzzes", False)]
    assert len(found) == N_TARGETS
