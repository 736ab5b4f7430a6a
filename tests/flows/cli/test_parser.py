"""Every command follows the same rules: `--json`, help with an example that parses, options with one meaning."""

import os
import shlex
import subprocess
import sys
from ast import literal_eval
from collections import defaultdict
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer

from flows.cli.app import app
from flows.cli.commands import GROUPS, PARSERS, WEEKLY
from tests.support.commands import run_here

WITHOUT_JSON = {"ops metrics": "its output is Prometheus' own format"}
"""Command -> why it has no `--json`; a new one needs its reason here."""
WITHOUT_CONFIG = {
    "explain": "it reads the documentation of the program",
    "model verify": "it reads a folder that may come from another machine",
    "data dictionary": "it describes what is the same for every file",
    "ops schema": "it prints what is the same for every file",
}
"""Command -> why it has no `--config`; a new one needs its reason here."""
TYPE_DIFFERS = {"--write"}
HELP_DIFFERS = {
    "--against": "what is compared with a commit: the tickets, or the gate",
    "--again": "once more, although nothing changed or it was removed already",
    "--all": "what else is taken: the user's shared server, or labels that decide nothing",
    "--by": "an approval needs a name, other decisions take the login's",
    "--format": "what is written: weights, or data",
    "--force": "past what would refuse: a file that exists, a gate",
    "--id": "of a ticket, or of an item in a file of results",
    "--metric": "which one is looked at, or compared",
    "--out": "what is written there: a copy of a page, or a folder",
    "-o": "as --out",
    "-n": "how many are shown: rows or examples",
    "--pipeline": "which one is meant, where a name does not say it",
    "--reason": "why, of a decision or of another ledger",
    "--run": "without it, a plan is drawn or the newest run is taken",
    "--write": "people's rows: tickets go to a file of the user's, answers of a run to its private report",
    "--sql": "what is queried: the tables of curation, or a database to start from",
}
"""Option -> its meaning in every command, if its help is specific to the command."""
PROJECT = Path(__file__).parents[3]
PARSER: Any = typer.main.get_command(app)


def commands(command: Any = PARSER, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every command that is not a group, by its full name."""
    inner = getattr(command, "commands", {})
    if not inner:
        yield name, command.load()
    for key, each in inner.items():
        yield from commands(each, f"{name} {key}".strip())


ALL = dict(commands())


def options(name: str) -> dict[str, Any]:
    """Spelling -> option, for visible options."""
    shown = [parameter for parameter in ALL[name].params if not getattr(parameter, "hidden", False)]
    return {spelling: parameter for parameter in shown for spelling in parameter.opts if spelling.startswith("-")}


def test_the_top_level_has_weekly_commands_and_the_rest_is_in_groups() -> None:
    groups = {name.split()[0] for name in ALL if " " in name}
    assert groups == {"data", "gate", "model", "study", "ops"}
    assert [name for name in ALL if " " not in name] == [
        "init", "try", "validate", "pin", "plan", "run", "status", "runs", "show", "report", "predict", "graph",
        "explain",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ALL)
def test_a_command_has_json_and_config_options(name: str) -> None:
    assert ("--json" in options(name)) != (name in WITHOUT_JSON)
    assert ("--config" in options(name)) != (name in WITHOUT_CONFIG)


@pytest.mark.parametrize("name", ALL)
def test_a_command_has_a_one_line_summary_and_an_example(name: str) -> None:
    command = ALL[name]
    assert len(command.help) > 15
    assert not command.get_short_help_str(66).endswith("..."), "its line in the list of commands is truncated"
    assert "Raises:" not in command.help
    assert command.epilog.startswith(f"Example: tunegate {name}")
    for parameter in command.params:
        assert getattr(parameter, "help", ""), f"{name} {parameter.name} has no help"


def test_the_lists_of_commands_have_the_real_names_and_first_lines() -> None:
    """They are written down apart from the commands, so that a list imports none of them."""
    groups = {"": WEEKLY, **{name: files for name, (_, files) in GROUPS.items()}}
    listed = {f"{group} {name}".strip(): each for group, files in groups.items() for name, each in files.items()}
    assert {name: summary for name, (_, summary) in listed.items()} == {
        name: each.get_short_help_str(80) for name, each in ALL.items()
    }
    for path in (PROJECT / "flows" / "cli").glob("[a-z]*.py"):
        import_module(f"flows.cli.{path.stem}")
    made = {(module.removeprefix("flows.cli."), name) for module, name in PARSERS}
    assert made == {(file, name.split()[-1]) for name, (file, _) in listed.items()}


def test_a_list_of_commands_imports_none_of_them(tmp_path: Path) -> None:
    code = (
        "import contextlib, sys\nfrom flows.cli import main\n"
        "with contextlib.suppress(SystemExit):\n    main(sys.argv[1:])\n"
        "print([name for name in sys.modules if name.startswith('flows.cli.')], file=sys.stderr)"
    )
    for words in (["--help"], ["data", "--help"], ["ops"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
        )  # fmt: skip
        assert "curate" in done.stdout or words != ["data", "--help"]
        assert set(literal_eval(done.stderr.splitlines()[-1])) == {
            f"flows.cli.{name}" for name in ("app", "commands", "exit_codes", "output")
        }


@pytest.mark.parametrize("name", ALL)
def test_the_parser_accepts_the_example(name: str) -> None:
    example = ALL[name].epilog.removeprefix("Example: ")
    words = shlex.split(example.partition(" > ")[0])
    n_words = len(name.split())
    assert words[: 1 + n_words] == ["tunegate", *name.split()]
    assert ALL[name].make_context(name, words[1 + n_words :]).params


def test_an_option_means_the_same_in_every_command() -> None:
    meanings: dict[str, set[tuple[Any, ...]]] = defaultdict(set)
    helps: dict[str, set[str]] = defaultdict(set)
    for name in ALL:
        for spelling, option in options(name).items():
            meanings[spelling].add((option.is_flag, option.multiple, option.type_descriptor.annotation))
            helps[spelling].add(option.help)
    assert {spelling for spelling, each in meanings.items() if len(each) > 1} == TYPE_DIFFERS
    assert {spelling for spelling, each in helps.items() if len(each) > 1} == HELP_DIFFERS.keys()


def test_no_command_prompts_so_none_needs_yes() -> None:
    assert not [name for name in ALL if any(getattr(each, "prompt", None) for each in ALL[name].params)]
    assert not [name for name in ALL if "--yes" in options(name)]


def test_the_top_level_help_fits_a_terminal_and_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom flows.cli import main\n"
        "try:\n    main(['--help'])\n"
        "finally:\n    print(sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "COLUMNS": "80"},
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert len(lines) < 24, "one line is for the prompt"
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if line.endswith("...") and not line.startswith("Usage")]
    for name in {*PARSER.commands}:
        assert any(line.startswith(f"  {name} ") for line in lines), name
    heavy = {
        "prefect", "torch", "transformers", "mlflow", "duckdb", "pydantic", "pandas", "pandera", "sklearn", "numpy",
        "pyarrow", "rich",
    }  # fmt: skip
    assert not heavy & set(done.stderr.translate(str.maketrans("[],'", "    ")).split())


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("tunegate pre", ["predict"]),
        ("tunegate cha", []),
        ("tunegate model cha", ["champion"]),
        ("tunegate model champion support-replies-m", ["support-replies-mislabelled"]),
        ("tunegate run support-replies-m", ["support-replies-mislabelled"]),
        ("tunegate runs -c other.yaml ", ["alpha", "beta"]),
        ("tunegate study cost -c other.yaml ", ["alpha", "beta"]),
        ("tunegate report -c other.yaml --last ", ["alpha", "beta"]),
        ("tunegate runs -c absent.yaml ", []),
        ("tunegate run --unt", ["--until"]),
        ("tunegate model export x --format ol", ["ollama"]),
        ("tunegate gate ", ["check", "explain", "label", "resume"]),
        ("tunegate gate explain --met", ["--metric"]),
        ("tunegate init --from tick", []),
    ],
)
def test_completion_covers_commands_options_choices_and_pipelines(
    words: str, wanted: list[str], project: Path, tmp_path: Path
) -> None:
    text = "pipelines:\n  alpha:\n    a: 1\n\n# broken: [\n  beta: {}\nother:\n  gamma: 1\n"
    (tmp_path / "other.yaml").write_text(text)
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" ")), "_TUNEGATE_COMPLETE": "complete_bash"}
    config = {"TUNEGATE_CONFIG": str(project / "pipelines.yaml")}
    done = run_here((), cwd=tmp_path, environ={**os.environ, **config, **asked})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == wanted
