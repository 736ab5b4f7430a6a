"""`tunegate gate check` over files of results in a new process."""

import subprocess
import sys
from pathlib import Path

import orjson


def test_neither_torch_nor_prefect_nor_mlflow_is_imported(tmp_path: Path) -> None:
    for name, right in (("a", 5), ("b", 9)):
        rows = [{"id": number, "answer": str(number < right), "reference": "True"} for number in range(60)]
        (tmp_path / f"{name}.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    code = (
        "import sys; sys.argv = ['tunegate', 'gate', 'check', '--champion', 'a.jsonl', '--candidate', 'b.jsonl']\n"
        "from flows.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'transformers', 'prefect', 'mlflow', 'duckdb'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
