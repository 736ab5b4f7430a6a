"""`tunegate metrics`."""

from __future__ import annotations

import sys
from pathlib import Path

from flows.views.metrics import exposition
from flows.workspace.settings import load_settings


def metrics(*, config: Path) -> int:
    """Print them in Prometheus' text format."""
    sys.stdout.write(exposition(load_settings(config)).decode())
    return 0
