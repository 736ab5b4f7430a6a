"""Kernels are compiled once, kept whole or not at all, and run without numba afterwards."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_the_join_runs_without_importing_numba(project: Path) -> None:
    code = (
        "import sys; from tasks.curate.similarity.join import similar_pairs; "
        "similar_pairs(['a b c d'] * 2, n_words=3, threshold=0.8); "
        "sys.exit('numba' in sys.modules)"
    )
    for _ in range(2):  # the first may have to compile
        done = subprocess.run([sys.executable, "-c", code], cwd=project, env={"PYTHONPATH": str(project)}, check=False)
    assert done.returncode == 0
