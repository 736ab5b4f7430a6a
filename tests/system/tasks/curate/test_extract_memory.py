"""Tickets that exceed the memory limit go through temporary files: same bytes, flat memory."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.tasks.curate.test_extract_memory import as_csv, as_jsonl

GROWTH = """
import sys
from pathlib import Path
from schemas.source import FilesSource
from tasks.curate import row_groups
from tasks.curate.extract import extract_tickets
from tasks.sources.registry import fingerprint_source
from tasks.sources.kind import Place
from tasks.curate import gather, spill
row_groups.GROUP_BYTES = gather.HELD_BYTES = 1 << 20
spill.CHUNK_BYTES = gather.HELD_BYTES >> 5
root = Path(sys.argv[1])
for name in ("small", "large"):
    source = FilesSource(kind="files", paths=(f"{name}.{sys.argv[2]}",))
    out = root / f"{name}-{sys.argv[2]}"
    out.mkdir()
    fingerprint = fingerprint_source(source, root=root)
    print(extract_tickets(source=source, fingerprint=fingerprint, place=Place(root), out=out).rows.n_out)
    [peak] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    print(int(peak.split()[1]) // 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_a_larger_file_takes_no_more_memory(form: str, tmp_path: Path, project: Path) -> None:
    rows = [{"ticket_id": f"{number * 7919 % 10007}", "body": "long text " * 200} for number in range(2000)]
    write = as_jsonl if form == "jsonl" else as_csv
    (tmp_path / f"small.{form}").write_bytes(write(rows))
    large = write(rows)
    again = large if form == "jsonl" else large.partition(b"\n")[2]
    (tmp_path / f"large.{form}").write_bytes(large + 4 * again)
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, str(tmp_path), form],
        cwd=project, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(project)},
    )  # fmt: skip
    n_small, small_mb, n_large, large_mb = map(int, done.stdout.split())
    assert (n_small, n_large) == (2000, 10_000)
    assert large_mb - small_mb < 10, "the files have 4 and 20 MB"
