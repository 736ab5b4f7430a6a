"""Losses per token are compared only between bases with the same tokenizer."""

from pathlib import Path

import pytest

from schemas.artifacts import ModelRef
from schemas.errors import ConfigError
from tasks.model.base_model import check_same_tokenizer


def base(root: Path, text: str | None) -> ModelRef:
    root.mkdir()
    if text is not None:
        (root / "tokenizer.json").write_text(text)
    return ModelRef(root=root, uri=f"file:{root.name}", n_parameters=1, vocab_size=2, context_length=3)


def test_another_or_a_missing_tokenizer_is_an_error(tmp_path: Path) -> None:
    first, same, other, none = (
        base(tmp_path / name, text) for name, text in (("a", "x"), ("b", "x"), ("c", "y"), ("d", None))
    )
    assert check_same_tokenizer(model=same, first=first, out=tmp_path).root == tmp_path
    for model, second_base in ((other, first), (none, first), (none, none)):
        with pytest.raises(ConfigError, match="TG0160"):
            check_same_tokenizer(model=model, first=second_base, out=tmp_path)
