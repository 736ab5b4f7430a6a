"""Fixtures shared with tests/tasks/model."""

from __future__ import annotations

from tests.tasks.model.conftest import gguf_kit, tiny_gguf
