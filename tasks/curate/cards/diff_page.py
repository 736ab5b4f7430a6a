"""The page of `tunegate data diff`: one self-contained HTML file without scripts. `diff.html.j2` escapes every text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.pages.templates import render

KINDS = {"added": "good", "gone": "quarantined", "changed": "candidate", "moved": "dropped"}
"""What can have happened to a ticket, and its colour."""


def draw_diff(found: Mapping[str, Any]) -> str:
    """The whole page, of what `tunegate data diff --json` prints."""
    return render("diff.html.j2", folder=Path(__file__).parent, found=found, kinds=KINDS)
