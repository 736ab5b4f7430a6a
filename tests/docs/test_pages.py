"""Blocks of the pages: the parser accepts every command, the loader every YAML block."""

import re
import shlex
import subprocess
from functools import cache
from io import StringIO
from pathlib import Path

from ruamel.yaml import YAML

from flows.cli.app import app
from infra.site.reference import PAGE, reference_page
from schemas.load import load_file
from tests.support.documentation import COMMANDS, blocks, inline_commands, pages, unknown
from tests.system.docs import test_scenes

OTHER_PROGRAMS = {
    "cd",
    "cp",
    "curl",
    "docker",
    "eval",
    "export",
    "git",
    "ollama",
    "openssl",
    "pre-commit",
    "prefect",
    "source",
    "uv",
}
"""Programs with arguments that are not checked; `python -m MODULE` and `make TARGET` are looked up."""
NEVER_RUN = {
    ("docs/how-to/gate-results-from-elsewhere.md", "needs two files of results; test_gate_files.py has some"),
    ("docs/how-to/gate-results-from-elsewhere.md", "needs files of results; test_gate_ledger.py has some"),
    ("docs/how-to/gate-a-pull-request.md", "a workflow of GitHub, not a pipeline"),
    ("docs/how-to/gate-a-pull-request.md", "needs files of results and a repository; test_pull_request.py has both"),
    ("docs/how-to/gate-a-pull-request.md", "needs a repository; test_pull_request.py and test_running.py have one"),
    ("docs/how-to/correct-tickets.md", "needs people and a curated pipeline"),
    ("docs/how-to/install.md", "installs from a package index"),
    ("docs/how-to/install.md", "installs from PyTorch's index"),
    ("docs/how-to/label-answers.md", "needs people and a run with labels"),
    ("docs/how-to/run-the-stack.md", "needs a cluster"),  # of Kubernetes
    ("docs/how-to/fit-a-training-in-memory.md", "settings of accelerate, not of tunegate"),
}
"""Page and reason of each block that no test runs."""
LOOKS_LIKE_COMMANDS = re.compile(r"^(?:\$ )?(?:tunegate|make|curl|git|uv|docker|python) ", re.M)


@cache
def targets(project: Path) -> list[str]:
    """The targets of the Makefile."""
    return re.findall(r"^([a-z0-9-]+):", (project / "Makefile").read_text(), re.M)


def fault_of(command: str, project: Path) -> str:
    """What is wrong with a command of a page; empty if nothing is."""
    words = shlex.split(command)
    words = words[: words.index("|")] if "|" in words else words
    while words and re.fullmatch(r"[A-Za-z_]+=.*", words[0], re.S):
        words.pop(0)
    match words:
        case []:
            return ""
        case ["tunegate", *arguments]:
            return unknown(app, arguments, complete=True)
        case ["make", *arguments]:
            return ", ".join(each for each in arguments if "=" not in each and each not in targets(project))
        case ["python" | "python3", "-m", module, *_]:
            path = project / module.replace(".", "/")
            return "" if path.with_suffix(".py").is_file() or (path / "__main__.py").is_file() else module
        case [program, *_] if program in OTHER_PROGRAMS:
            return ""
    return f"unknown program in {command!r}"


def test_every_command_of_a_page_is_accepted_by_its_program(project: Path) -> None:
    found = [
        (block, command) for block in blocks(project) if block.language in COMMANDS for command in block.commands()
    ]
    assert len(found) > 50
    assert [f"{block.place} {command}: {why}" for block, command in found if (why := fault_of(command, project))] == []


def test_every_command_in_running_text_exists_with_its_options(project: Path) -> None:
    faults, n = [], 0
    for path in pages(project):
        for _, command in inline_commands(path):
            words = shlex.split(command.replace("'", ""))
            n += 1
            if words[0] == "make":
                why = fault_of(" ".join(word for word in words if not word.startswith("DEMO")), project)
            else:
                why = unknown(app, words[1:], complete=False)
            faults += [f"{path.name} `{command}`: {why}"] if why else []
    assert n > 50
    assert faults == []


def test_every_block_is_run_by_a_test_or_gives_a_reason(project: Path) -> None:
    scenes = {name.removeprefix("test_scene_") for name in dir(test_scenes) if name.startswith("test_scene_")}
    assert {block.scene for block in blocks(project) if block.scene} == scenes
    assert {(block.page, block.why_not) for block in blocks(project) if block.why_not} == NEVER_RUN


def test_every_target_of_make_has_a_recipe(project: Path) -> None:
    for target in targets(project):
        done = subprocess.run(
            ["make", "--dry-run", "--always-make", target], cwd=project, capture_output=True, text=True, check=False
        )
        assert (done.returncode, bool(done.stdout)) == (0, True), f"{target}: {done.stderr}"


def test_commands_that_the_parser_refuses_are_found(project: Path) -> None:
    assert "no command" in fault_of("tunegate runn support-replies", project)
    assert "--agian" in fault_of("tunegate run support-replies --agian", project)
    assert "Missing argument" in fault_of("tunegate run", project)
    assert fault_of("make deno", project) == "deno"
    assert unknown(app, ["run", "--agian"], complete=False) == "--agian"


def test_no_block_without_a_language_contains_a_command(project: Path) -> None:
    found = [block for block in blocks(project) if block.language not in COMMANDS]
    assert [block.place for block in found if LOOKS_LIKE_COMMANDS.search(block.text)] == []
    fences = sum(path.read_text(encoding="utf-8").count("\n```") for path in pages(project))
    assert fences == 2 * len(blocks(project)), "a fence has no language"


def test_the_loader_reads_every_yaml_block(project: Path, tmp_path: Path) -> None:
    yaml = YAML(typ="safe", pure=True)
    document = yaml.load((project / "pipelines.yaml").read_text(encoding="utf-8"))
    document["pipelines"] = {"support-replies": document["pipelines"]["support-replies"]}
    n = 0
    for block in blocks(project):
        if block.language != "yaml":
            continue
        section = yaml.load(block.text)
        if "pipelines" in section:
            path = tmp_path / "pipelines.yaml"
            path.write_text(block.text, encoding="utf-8")
            assert load_file(path, environ={}).pipelines, block.place
        elif not block.why_not and not block.scene:
            name = f"{Path(block.page).stem.lower()}-{block.line}"  # appears in the loader's messages
            document["pipelines"][name] = {"extends": "support-replies", **section}
        n += 1
    assert n > 10
    stream = StringIO()
    YAML().dump(document, stream)
    (tmp_path / "parts.yaml").write_text(stream.getvalue(), encoding="utf-8")
    variables = re.findall(r"\$\{env:(\w+)", stream.getvalue())
    load_file(tmp_path / "parts.yaml", environ=dict.fromkeys(variables, "a-value"))


def test_the_page_of_all_keys_is_that_of_the_schema() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference_page(), "`make docs` writes it"
