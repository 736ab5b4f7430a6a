"""MLflow runs on a real SQLite store: idempotent, silent on the screen, with known errors."""

import os
import subprocess
import sys
import time
from pathlib import Path

from tasks.release.tracking import choose_uri, open_client
from tests.support.project import PROJECT


def test_a_new_store_is_created_silently_without_telemetry_or_other_files(tmp_path: Path) -> None:
    program = (
        "import sys, os\n"
        "from pathlib import Path\n"
        "from schemas.release import RunRecord\n"
        "from tasks.release.tracking import *\n"
        "assert 'mlflow' not in sys.modules\n"
        "uri = choose_uri('', None, home=Path('home'). absolute())\n"
        "record = RunRecord(run_id='r', pipeline='p', metrics={'exact': 1.0})\n"
        "client = open_client(uri)\n"
        "from mlflow.telemetry import get_telemetry_client\n"
        "assert get_telemetry_client() is None\n"
        "complete_run(client, begin_run(client, record, experiment='e', uri=uri), record, uri=uri)\n"
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "DO_NOT_"))}
    environ["PYTHONPATH"] = str(PROJECT)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    assert [path.name for path in (tmp_path / "home").rglob("*")] == ["mlflow", "mlflow.db"]
    assert (tmp_path / "home" / "mlflow").stat().st_mode & 0o077 == 0


MAKE_STORE = """
import sys, time
from pathlib import Path
from schemas.release import RunRecord
from tasks.release.tracking import *
import mlflow
time.sleep(max(0.0, float(sys.argv[2]) - time.time()))
uri = choose_uri("", None, home=Path(sys.argv[1]))
begin_run(open_client(uri), RunRecord(run_id=sys.argv[3], pipeline="p"), experiment=sys.argv[3], uri=uri)
"""


def test_several_processes_can_create_the_store_at_once(tmp_path: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(PROJECT)}
    start_at = str(time.time() + 12)
    makers = [
        subprocess.Popen([sys.executable, "-c", MAKE_STORE, tmp_path, start_at, name], env=environ)
        for name in ("a", "b", "c")
    ]
    assert [maker.wait() for maker in makers] == [0, 0, 0]
    client = open_client(choose_uri("", None, home=tmp_path))
    assert {experiment.name for experiment in client.search_experiments()} == {"Default", "a", "b", "c"}
    assert [path.name for path in (tmp_path / "mlflow").iterdir()] == ["mlflow.db"]
