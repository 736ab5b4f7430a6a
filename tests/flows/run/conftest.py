"""A tiny GGUF file, as the models' tests have it."""

from tests.tasks.model.conftest import gguf_kit, tiny_gguf

__all__ = ["gguf_kit", "tiny_gguf"]
