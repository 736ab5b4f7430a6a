"""Adapters in a process that has imported nothing yet."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.project import PROJECT


def test_no_kernel_is_looked_up_on_the_hub(tmp_path: Path) -> None:
    """bitsandbytes would otherwise load one, on processors with AVX512-BF16."""
    (tmp_path / "kernels.py").write_text(
        f"import pathlib\ndef get_kernel(*_, **__): pathlib.Path({str(tmp_path / 'asked')!r}).touch()\n"
    )
    script = (
        "import tasks.model.adapter, importlib.util as u; assert u.find_spec('kernels') is None\n"
        "import bitsandbytes, peft, transformers.integrations.hub_kernels"
    )
    environ = {**os.environ, "PYTHONPATH": f"{tmp_path}:{PROJECT}"}
    subprocess.run([sys.executable, "-c", script], check=True, env=environ, cwd=tmp_path)
    assert not (tmp_path / "asked").exists()
