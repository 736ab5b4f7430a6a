"""`tunegate validate` and `tunegate schema`."""

from __future__ import annotations

import sys
from pathlib import Path

from flows.commands.output import out, print_json
from schemas.editor import editor_schema_text
from schemas.load import load_file


def validate(*, config: Path, as_json: bool) -> int:
    """Load the file; errors are raised all at once by the loader."""
    loaded = load_file(config)
    names = sorted(loaded.pipelines)
    if as_json:
        print_json({"file": str(config), "pipelines": names})
    else:
        out().print(f"{config}: {len(names)} pipelines are valid: {', '.join(names)}")
    return 0


def schema() -> int:
    """Print the schema that editors use, byte for byte as it is committed."""
    sys.stdout.write(editor_schema_text())
    return 0
