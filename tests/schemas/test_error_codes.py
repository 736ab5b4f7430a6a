"""Every code that reading a configuration can end with is documented."""

from __future__ import annotations

import re
from pathlib import Path


def test_each_code_of_the_schemas_has_a_row_in_the_documentation(project: Path) -> None:
    used = {
        code
        for file in (project / "schemas").glob("*.py")
        for code in re.findall(r'"(TG01\d\d)"', file.read_text(encoding="utf-8"))
    }
    rows = re.findall(r"^\| (TG\d{4}) \| \S.* \| \S.* \|$", (project / "docs" / "errors.md").read_text(), re.MULTILINE)
    assert used <= set(rows)
    assert len(rows) == len(set(rows))
    assert {"TG0101", "TG0111"} <= used
