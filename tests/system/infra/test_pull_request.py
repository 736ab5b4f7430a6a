"""The action of `infra/github`: its own scripts, the real command, a git repository, and a server that plays GitHub."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from ruamel.yaml import YAML

from flows.views.gate_check import weakened
from schemas.errors import ConfigError
from tests.support.commands import run_here

PROJECT = Path(__file__).parents[3]
BOT, STRANGER = "github-actions[bot]", "mallory"
TOKEN = "t0ken-of-the-job"
GATE = "gates: {rules: [{metric: exact, change_threshold: {mode: refresh, margin: %s}}]}\n"


@dataclass
class GitHub:
    """What a repository's pull request 7 has, and every request; as GitHub's documentation has them."""

    comments: list[dict[str, Any]] = field(default_factory=list)
    calls: list[tuple[str, str]] = field(default_factory=list)
    refuses: bool = False
    account: str = BOT
    """That of the token."""
    url: str = ""

    def add(self, author: str, body: str) -> dict[str, Any]:
        number = 1000 + len(self.comments)
        address = f"https://github.com/org/name/pull/7#issuecomment-{number}"
        self.comments.append({"id": number, "user": {"login": author}, "body": body, "html_url": address})
        return self.comments[-1]

    def answer(self, method: str, path: str, body: dict[str, str] | None, token: str) -> tuple[int, Any]:
        self.calls.append((method, path))
        url = urlsplit(path)
        if token != f"Bearer {TOKEN}":
            return 401, {"message": "Bad credentials"}
        if self.refuses and method != "GET":
            return 403, {"message": "Resource not accessible by integration"}
        if method == "GET" and url.path == "/repos/org/name/issues/7/comments":
            asked = parse_qs(url.query)
            size, page = int(asked["per_page"][0]), int(asked["page"][0])
            return 200, self.comments[(page - 1) * size : page * size]
        if method == "POST" and url.path == "/repos/org/name/issues/7/comments" and body:
            return 201, self.add(self.account, body["body"])
        found = [each for each in self.comments if url.path == f"/repos/org/name/issues/comments/{each['id']}"]
        if method == "PATCH" and found and body:
            found[0]["body"] = body["body"]
            return 200, found[0]
        return 404, {"message": "Not Found"}


@pytest.fixture
def github() -> Iterator[GitHub]:
    played = GitHub()

    class Handler(BaseHTTPRequestHandler):
        def _do(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size)) if size else None
            status, answer = played.answer(self.command, self.path, body, self.headers.get("Authorization", ""))
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PATCH = _do  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        played.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield played
        server.shutdown()


@dataclass
class Job:
    """A repository with results and a gate, in which the action's steps run as the runner runs them."""

    folder: Path
    github: GitHub

    def git(self, *words: str) -> str:
        named = ("-c", "user.name=ada", "-c", "user.email=ada@example.org")
        done = subprocess.run(["git", *named, *words], cwd=self.folder, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def commit(self, *, margin: str) -> str:
        (self.folder / "gate.yaml").write_text(GATE % margin)
        self.git("add", "-A")
        self.git("commit", "-qm", f"margin {margin}")
        return self.git("rev-parse", "HEAD")

    def results(self, name: str, n_right: int) -> None:
        rows = [f"t{item},question {item},{int(item < n_right)}" for item in range(400)]
        (self.folder / name).write_text("\n".join(["id,prompt,exact", *rows]))

    def run(self, base: str, **inputs: str) -> tuple[int, str]:
        """The job's exit code and what its steps printed."""
        temp = self.folder / "runner"
        temp.mkdir(exist_ok=True)
        tool = temp / "bin" / "tunegate"
        tool.parent.mkdir(exist_ok=True)
        tool.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(PROJECT))} exec {sys.executable} -m flows.cli "$@"\n')
        tool.chmod(0o755)
        action = YAML(typ="safe").load((PROJECT / "infra" / "github" / "action.yml").read_text())
        given = {name: str(each.get("default", "")) for name, each in action["inputs"].items()}
        given |= {
            "token": TOKEN,
            "arguments": ARGUMENTS,
            **{key.replace("_", "-"): value for key, value in inputs.items()},
        }
        (temp / "output").write_text("")
        values = {
            **{f"inputs.{name}": value for name, value in given.items()},
            "inputs.against || github.event.pull_request.base.sha": given["against"] or base,
            "github.event.pull_request.number": "7",
            "github.action_path": str(PROJECT / "infra" / "github"),
        }
        runner = {
            "PATH": f"{tool.parent}{os.pathsep}{os.environ['PATH']}", "HOME": str(temp), "RUNNER_TEMP": str(temp),
            "GITHUB_STEP_SUMMARY": str(temp / "summary"), "GITHUB_OUTPUT": str(temp / "output"),
            "GITHUB_REPOSITORY": "org/name", "GITHUB_API_URL": self.github.url, "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        said, code = "", 0
        for step in action["runs"]["steps"]:
            output = dict(line.split("=", 1) for line in (temp / "output").read_text().splitlines())
            known = {**values, "steps.check.outputs.code": output.get("code", "")}
            environ = {name: filled(text, known) for name, text in step["env"].items()}
            done = subprocess.run(
                ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]], cwd=self.folder,
                env={**runner, **environ}, capture_output=True, text=True, check=False,
            )  # fmt: skip
            said, code = said + done.stdout + done.stderr, done.returncode
            if code:
                break
        return code, said


ARGUMENTS = "--champion champion.csv --candidate candidate.csv --rules gate.yaml"


def filled(text: str, values: Mapping[str, str]) -> str:
    """An expression of the action with what the runner puts in its place."""
    for name, value in values.items():
        text = text.replace(f"${{{{ {name} }}}}", value)
    assert "${{" not in text, text
    return text


@pytest.fixture
def job(tmp_path: Path, github: GitHub) -> Job:
    job = Job(tmp_path / "repository", github)
    job.folder.mkdir()
    job.git("init", "-q")
    (job.folder / ".gitignore").write_text("runner\n*.csv\n")
    job.results("champion.csv", 300)
    job.results("candidate.csv", 330)
    return job


def test_a_later_run_replaces_the_comment_of_the_first(job: Job) -> None:
    base = job.commit(margin="0.02")
    for number in range(120):  # more than a page
        job.github.add("ada", f"comment {number}")
    job.github.add(STRANGER, "<!-- tunegate: gate-check -->\nnot yours")["user"] = None  # the account is gone
    code, said = job.run(base)
    assert code == 0, said
    assert job.github.calls[-1] == ("POST", "/repos/org/name/issues/7/comments")
    posted = job.github.comments[-1]["body"]
    assert posted.startswith("<!-- tunegate: gate-check -->\n## PROMOTE: gate-check")
    job.results("candidate.csv", 200)
    code, said = job.run(base)
    assert code == 5, said
    assert len(job.github.comments) == 122
    assert "## BLOCK: gate-check" in job.github.comments[-1]["body"]
    assert job.github.comments[-2]["body"].endswith("not yours")
    assert TOKEN not in said
    assert "## BLOCK" in (job.folder / "runner" / "summary").read_text()


def test_a_weakened_gate_is_named_first_and_nothing_is_judged_by_it(job: Job) -> None:
    base = job.commit(margin="0.02")
    job.commit(margin="0.2")
    job.results("candidate.csv", 290)
    code, said = job.run(base)
    assert (code, "TG0626" in said) == (9, True), said
    body = job.github.comments[-1]["body"]
    assert "margin of exact against champion is 0.2, and was 0.02" in body
    assert "Nothing was judged." in body
    code, said = job.run(base, allow_weaker="true")
    assert code == 5, said
    body = job.github.comments[-1]["body"]
    assert len(job.github.comments) == 1
    assert body.index("The gate is weaker than on the base branch") < body.index("## BLOCK")


def test_the_comment_of_another_account_is_replaced_where_the_token_is_its_own(job: Job) -> None:
    base = job.commit(margin="0.02")
    job.github.account = "gate-of-ada[bot]"
    job.github.add(BOT, "<!-- tunegate: gate-check -->\nof another workflow")
    for _ in range(2):
        code, said = job.run(base, author="gate-of-ada[bot]")
        assert code == 0, said
    assert [each["user"]["login"] for each in job.github.comments] == [BOT, "gate-of-ada[bot]"]
    assert job.github.calls[-1][0] == "PATCH"


def test_the_page_names_every_input_of_the_action() -> None:
    action = YAML(typ="safe").load((PROJECT / "infra" / "github" / "action.yml").read_text())
    page = (PROJECT / "docs" / "how-to" / "gate-a-pull-request.md").read_text()
    assert [name for name in action["inputs"] if f"| `{name}` |" not in page] == []


def test_arguments_may_be_on_several_lines(job: Job) -> None:
    """Else those after the first would be dropped without a word, such as `--anchor`."""
    base = job.commit(margin="0.02")
    arguments = ARGUMENTS.replace(" --", "\n--") + "\n--anchor missing.csv\n"
    code, said = job.run(base, arguments=arguments)
    assert (code, "missing.csv" in said) == (3, True), said


def test_what_github_refuses_is_said_and_fails(github: GitHub, tmp_path: Path) -> None:
    github.refuses = True
    (tmp_path / "summary.md").write_text("<!-- tunegate: gate-check -->\n## PROMOTE\n")
    words = [sys.executable, str(PROJECT / "infra" / "github" / "comment.py"), "summary.md", "--repository", "org/name"]
    for token, code in ((TOKEN, "403"), ("another", "401")):
        environ = {"GITHUB_API_URL": github.url, "GITHUB_TOKEN": token}
        done = subprocess.run(
            [*words, "--pull-request", "7"], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert f"GitHub answered {code}" in done.stderr
        assert "pull-requests: write" in done.stderr
        assert token not in done.stderr
    assert github.comments == []


def test_a_gate_that_the_base_does_not_have_counts_as_weaker(job: Job) -> None:
    base = job.commit(margin="0.02")
    moved = (job.folder / "gate.yaml").rename(job.folder / "other.yaml")
    config = job.folder / "pipelines.yaml"
    assert weakened(base, rules=moved, pipeline=None, config=config) == [
        f"other.yaml is not in {base}, so that nothing shows that the gate is as strict"
    ]
    with pytest.raises(ConfigError, match="default gate is in no file"):
        weakened(base, rules=None, pipeline=None, config=config)
    with pytest.raises(ConfigError, match="cannot be read from git"):
        weakened("nowhere", rules=moved, pipeline=None, config=config)


def test_a_gate_behind_a_link_counts_as_weaker(job: Job) -> None:
    """Else a change could point the link at a lenient gate that the base has, too."""
    (job.folder / "lenient").mkdir()
    (job.folder / "lenient" / "gate.yaml").write_text(GATE % "0.9")
    base = job.commit(margin="0.02")
    gate, config = job.folder / "gate.yaml", job.folder / "pipelines.yaml"
    assert weakened(base, rules=gate, pipeline=None, config=config) == []
    gate.unlink()
    gate.symlink_to("lenient/gate.yaml")
    (job.folder / "strict").symlink_to("lenient")
    for path in (gate, job.folder / "strict" / "gate.yaml"):
        (found,) = weakened(base, rules=path, pipeline=None, config=config)
        assert "is reached by the link" in found


def test_a_check_that_fails_replaces_the_comment_of_an_earlier_verdict(job: Job) -> None:
    base = job.commit(margin="0.02")
    assert job.run(base)[0] == 0
    (job.folder / "candidate.csv").write_text("no,ids\n1,2\n")
    code, said = job.run(base)
    assert code == 3, said
    assert len(job.github.comments) == 1
    body = job.github.comments[0]["body"]
    assert "PROMOTE" not in body
    assert "## No verdict" in body
    assert "TG0262" in body


def test_promotions_that_no_longer_wait_for_a_person_are_named(job: Job) -> None:
    config, text = job.folder / "pipelines.yaml", (PROJECT / "pipelines.yaml").read_text()
    name = "      name: support-replies #"
    assert text.count(name) == 1
    config.write_text(text.replace(name, f"      approval: required\n      cooldown_days: 7\n{name}"))
    base = job.commit(margin="0.02")
    assert weakened(base, rules=None, pipeline="support-replies", config=config) == []
    config.write_text(text)
    assert weakened(base, rules=None, pipeline="support-replies", config=config) == [
        "register.approval is none, and was required", "register.cooldown_days is 1, and was 7",
    ]  # fmt: skip


def test_a_run_names_a_weakened_gate_and_does_nothing_with_it_if_it_must_not(job: Job) -> None:
    config, text = job.folder / "pipelines.yaml", (PROJECT / "pipelines.yaml").read_text()
    config.write_text(text)
    base = job.commit(margin="0.02")
    old = "      confidence: 0.95"
    assert text.count(old) == 1
    config.write_text(text.replace(old, "      confidence: 0.9"))

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        words = ["run", "support-replies", "--no-prefect", "--markdown", "summary.md", *more]
        return run_here(words, cwd=job.folder, environ={"PATH": os.environ["PATH"], "HOME": str(job.folder)})

    sentence = "confidence is 0.9, and was 0.95"
    refused = run("--against", base, "--no-weaker")
    assert (refused.returncode, "TG0626" in refused.stderr) == (9, True), refused.stderr
    assert not (job.folder / ".tunegate").exists()
    summary = (job.folder / "summary.md").read_text()
    assert summary.startswith("<!-- tunegate: support-replies -->\n## The gate is weaker than on the base branch\n")
    assert sentence in summary
    assert "Nothing was judged." in summary
    warned = run("--against", base, "--as-of", "never")  # goes on, until that is refused
    assert (warned.returncode, sentence in warned.stderr) == (2, True), warned.stderr
    summary = (job.folder / "summary.md").read_text()
    assert sentence in summary
    assert "## No verdict\n\nTG0103" in summary
    scored = run("--against", base, "--no-weaker", "--set", "evaluate.max_new_tokens=1")
    assert "evaluate.max_new_tokens is another" in scored.stderr
    assert "TG0139" in run("--no-weaker").stderr
