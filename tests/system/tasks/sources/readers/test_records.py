"""Fast readers give the lines, values and rows of plain readers."""

import json
import subprocess
import sys
from pathlib import Path

READ_LONG_LINES = """
import resource, sys
from pathlib import Path
from tasks.sources.readers.columns import TicketMaker
from tasks.sources.readers.read_jsonl import read_jsonl
from schemas.source import FilesSource
maker = TicketMaker(FilesSource(kind="files", paths=("t",)))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
batches = (batch for batch in read_jsonl(Path(sys.argv[1])) if len(batch.rows))
sizes = [len(maker.make(batch).columns["body"][0].as_py()) for batch in batches]
print(len(sizes), sum(sizes), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_fields_of_ten_megabytes_pass_through_in_flat_memory(tmp_path: Path, project: Path) -> None:
    import gzip

    n_lines = 12
    with gzip.open(tmp_path / "t.jsonl.gz", "wb", compresslevel=1) as stream:
        for number in range(n_lines):
            stream.write(json.dumps({"ticket_id": f"{number}", "body": "long text " * 1_000_000}).encode() + b"\n")
    result = subprocess.run(
        [sys.executable, "-c", READ_LONG_LINES, str(tmp_path / "t.jsonl.gz")],
        cwd=project, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(project)},
    )  # fmt: skip
    n_read, n_characters, grown_mb = map(int, result.stdout.split())
    assert (n_read, n_characters) == (n_lines, n_lines * 10_000_000)
    assert grown_mb < 90, "the file has 120 MB; one line at a time takes a few copies of 10 MB"
