"""Iceberg tables: one snapshot, with each row once and no deleted rows."""

import subprocess
import sys
from pathlib import Path

from tests.support.iceberg_table import Lake
from tests.tasks.sources.test_iceberg import lake, source


def test_reading_a_table_uses_no_network(lake: Lake, project: Path) -> None:
    lake.append(range(3))
    code = (
        "import socket, sys; from pathlib import Path\n"
        "def refuse(*_, **__): raise SystemExit('a connection')\n"
        "socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse\n"
        "from schemas.source import IcebergSource; from tasks.sources.iceberg import read_iceberg\n"
        "spec = IcebergSource.model_validate_json(sys.argv[1])\n"
        "print(sum(len(batch) for batch in read_iceberg(spec, root=Path())))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, source(lake).model_dump_json()], capture_output=True, text=True, check=False,
        cwd=project,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr
