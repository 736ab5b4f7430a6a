"""The JSON Schema for editors matches the shipped file."""

import subprocess
import sys
from pathlib import Path


def check(project: Path, file: Path) -> subprocess.CompletedProcess[str]:
    schema = project / "schemas" / "pipelines.schema.json"
    command = [sys.executable, "-m", "check_jsonschema", "--schemafile", str(schema), str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_check_jsonschema_accepts_the_shipped_file_and_refuses_a_typo(project: Path, tmp_path: Path) -> None:
    shipped = project / "pipelines.yaml"
    assert check(project, shipped).returncode == 0
    typo = tmp_path / "pipelines.yaml"
    typo.write_text(shipped.read_text(encoding="utf-8").replace(" learning_rate:", " lerning_rate:"), encoding="utf-8")
    result = check(project, typo)
    assert result.returncode == 1
    assert "'lerning_rate' was unexpected" in result.stdout
