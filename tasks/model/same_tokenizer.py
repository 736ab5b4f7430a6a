"""Do two base models cut text into the same tokens? Only then can their losses per token be compared.

It knows nothing of trainings. A step of `flows/choice.py`, before a rung on another base is trained.
"""

from __future__ import annotations

from pathlib import Path

from schemas.artifacts import Artifact, ModelRef
from schemas.errors import ConfigError
from tasks.files import sha256_file

TOKENIZER = "tokenizer.json"


def check_same_tokenizer(*, model: ModelRef, first: ModelRef, out: Path) -> Artifact:
    """Compare the tokenizers' files; the result holds nothing.

    Raises:
        ConfigError: TG0162, they differ, or one of the models has none to compare.
    """
    digests = [_digest(each.root / TOKENIZER) for each in (first, model)]
    if digests[0] is None or digests[0] != digests[1]:
        raise ConfigError(
            f"{model.uri.split('#')[0]} cuts text into other tokens than {first.uri.split('#')[0]}: "
            "losses per token of the two cannot be compared",
            code="TG0162",
            where="train",
            hint="compare by a metric of the answers: exact, chrf, a field",
        )
    return Artifact(root=out)


def _digest(path: Path) -> str | None:
    return sha256_file(path) if path.is_file() else None
