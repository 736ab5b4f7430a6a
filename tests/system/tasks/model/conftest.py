"""Fixtures shared with tests/tasks/model."""

from tests.tasks.model.conftest import gguf_kit, tiny_gguf
