"""`tunegate ops doctor` says who else may reach servers and state."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from flows.views.doctor import Patient, exposure, judge_server, reachable_from_elsewhere, rights
from flows.workspace.settings import Settings
from tests.support.desk_server import send, serving

Start = Callable[..., str]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a server of somebody else's at an address of this machine; returns its own by way of loopback."""
    with ExitStack() as servers:

        def run(host: str, *, status: int, kind: str = "mlflow") -> str:
            url = servers.enter_context(serving(lambda handler: send(handler, status, {}), host=host))
            return url + ("/api" if kind == "prefect" else "")

        yield run


@pytest.mark.parametrize("kind", ["prefect", "mlflow"])
def test_a_server_on_loopback_needs_no_word(start: Start, kind: str) -> None:
    assert list(judge_server(kind, start("127.0.0.1", status=200, kind=kind), environ={})) == []


@pytest.mark.parametrize(("kind", "fix"), [("prefect", "PREFECT_SERVER_API_AUTH_STRING"), ("mlflow", "basic-auth")])
def test_a_server_that_listens_to_all_and_asks_nobody_is_a_warning(start: Start, kind: str, fix: str) -> None:
    (finding,) = judge_server(kind, start("0.0.0.0", status=200, kind=kind), environ={})  # noqa: S104 - that is the point
    assert (finding.what, finding.state) == (kind, "warn")
    assert "answers anyone" in finding.message
    assert fix in finding.fix


@pytest.mark.parametrize("status", [401, 403])
def test_one_that_asks_for_a_login_is_fine(start: Start, status: int) -> None:
    (finding,) = judge_server("mlflow", start("0.0.0.0", status=status), environ={})  # noqa: S104
    assert (finding.state, "asks for a login" in finding.message) == ("ok", True)


def test_a_remote_server_in_clear_text_is_a_warning_and_its_login_is_not_shown() -> None:
    found = list(judge_server("mlflow", "http://me:tell-nobody@mlflow.invalid:5000", environ={}))
    assert [finding.state for finding in found] == ["warn", "warn"]
    assert "does not answer, and no login is set here" in found[0].message
    assert "unencrypted" in found[1].message
    assert "tell-nobody" not in repr(found)
    guarded = list(judge_server("prefect", "https://p.invalid/api", environ={"PREFECT_API_AUTH_STRING": "a:b"}))
    assert [finding.state for finding in guarded] == ["ok"]


@pytest.mark.parametrize(
    ("table", "line", "reachable"),
    [
        ("tcp", "0100007F:1068", False),
        ("tcp", "00000000:1068", True),
        ("tcp", "0501A8C0:1068", True),
        ("tcp", "00000000:1069", False),
        ("tcp6", "00000000000000000000000001000000:1068", False),
        ("tcp6", "00000000000000000000000000000000:1068", True),
        ("tcp6", "0000000000000000FFFF00000100007F:1068", False),
    ],
)
def test_the_kernels_table_tells_where_a_port_listens(tmp_path: Path, table: str, line: str, reachable: bool) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / table).write_text(f"  sl  local rem st\n   0: {line} 00000000:0000 0A rest\n")
    assert reachable_from_elsewhere(0x1068, proc=tmp_path) is reachable


def test_a_state_folder_that_others_may_read_is_a_warning(tmp_path: Path) -> None:
    home = tmp_path / "home"
    settings = Settings(home=home, cache=tmp_path, prefect_api_url=None, mlflow_tracking_uri=None)
    patient = Patient(settings, Path("x"), {})
    assert list(rights(patient)) == []
    home.mkdir()
    home.chmod(0o750)  # whatever the umask of this process
    (finding,) = rights(patient)
    assert (finding.state, finding.fix) == ("warn", f"chmod 700 {home}")
    home.chmod(0o700)
    assert [finding.state for finding in rights(patient)] == ["ok"]


def test_the_doctor_looks_at_every_server_that_runs_use(
    tmp_path: Path, project: Path, start: Start, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.cli.ops import doctor

    monkeypatch.setenv("TUNEGATE_HOME", str(tmp_path))
    monkeypatch.setenv("PREFECT_API_URL", start("0.0.0.0", status=200, kind="prefect"))  # noqa: S104
    monkeypatch.setenv("MLFLOW_TRACKING_URI", start("0.0.0.0", status=200))  # noqa: S104
    assert doctor(config=project / "pipelines.yaml", as_json=True) == 1  # what answers is no Prefect server
    found = json.loads(capsys.readouterr().out)["findings"]
    warned = {
        finding["what"] for finding in found if finding["state"] == "warn" and "answers anyone" in finding["message"]
    }
    assert warned == {"prefect", "mlflow"}


def test_pipelines_that_name_their_own_mlflow_are_looked_at(tmp_path: Path, project: Path, start: Start) -> None:
    text = (project / "pipelines.yaml").read_text()
    uri = start("0.0.0.0", status=200)  # noqa: S104
    (tmp_path / "pipelines.yaml").write_text(
        text.replace("    register:\n", f"    register:\n      tracking_uri: {uri}\n", 1)
    )
    settings = Settings(home=tmp_path, cache=tmp_path, prefect_api_url=None, mlflow_tracking_uri=None)
    assert [finding.what for finding in exposure(Patient(settings, tmp_path / "pipelines.yaml", {}))] == ["mlflow"]
