"""Write a pinned commit into pipelines.yaml: the text alone changes where the address is, comments stay."""

from __future__ import annotations

import re
from pathlib import Path

from schemas.diagnostics import read_source
from schemas.yaml_text import MAX_BYTES, MAX_LINE
from tasks.files import write_atomic


def pin_in_file(config: Path, repo: str, commit: str) -> int:
    """Replace the revision of every `hf://REPO@REVISION`; return how many have changed.

    Raises:
        ConfigErrors: TG0110, the file cannot be read.
    """
    text: str = read_source(config, max_bytes=MAX_BYTES, max_line=MAX_LINE).text
    pinned = f"hf://{repo}@{commit}"
    found: list[str] = re.findall(rf"hf://{re.escape(repo)}(?![\w./-])(?:@[\w./-]+)?", text)
    n_changed = len([each for each in found if each != pinned])
    if n_changed:
        replaced = re.sub(rf"hf://{re.escape(repo)}(?![\w./-])(?:@[\w./-]+)?", pinned, text)
        write_atomic(config.absolute(), replaced.encode())
    return n_changed
