"""Every command keeps the house's rules: `--json`, a help text with an example that parses, completion, no colour."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from flows.cli import app
from flows.cli_examples import EXAMPLES
from flows.cli_removed import REMOVED_COMMANDS, refuse_removed
from schemas.errors import ConfigError
from tests.support.commands import run_here

WITHOUT_JSON = {"metrics": "its output is Prometheus' own format"}
"""Command -> why it has no `--json`; a new one needs its reason here."""
PARSER: Any = typer.main.get_command(app)


def commands(command: Any = PARSER, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every command that does something, with its words."""
    inner = getattr(command, "commands", {})
    if not inner:
        yield name, command
    for key, each in inner.items():
        yield from commands(each, f"{name} {key}".strip())


ALL = dict(commands())


def test_there_are_commands_and_each_has_an_example() -> None:
    assert len(ALL) > 30
    assert ALL.keys() == EXAMPLES.keys()


@pytest.mark.parametrize("name", ALL)
def test_a_command_prints_json_on_request(name: str) -> None:
    has = any("--json" in parameter.opts for parameter in ALL[name].params)
    assert has != (name in WITHOUT_JSON)


@pytest.mark.parametrize("name", ALL)
def test_a_command_says_what_it_does_and_shows_how(name: str) -> None:
    command = ALL[name]
    assert command.help
    assert len(command.help) > 15
    assert command.epilog == f"Example: {EXAMPLES[name]}"
    for parameter in command.params:
        assert getattr(parameter, "help", ""), f"{name} {parameter.name} has no help"


@pytest.mark.parametrize("name", ALL)
def test_the_example_is_one_that_the_parser_takes(name: str) -> None:
    words = shlex.split(EXAMPLES[name].partition(" > ")[0])
    n_words = len(name.split())
    assert words[: 1 + n_words] == ["tunegate", *name.split()]
    assert ALL[name].make_context(name, words[1 + n_words :]).params


def test_a_removed_command_names_its_replacement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REMOVED_COMMANDS, "paint", "`tunegate report RUN`")
    with pytest.raises(ConfigError, match="`tunegate paint` was removed") as error:
        refuse_removed(["--debug", "paint", "--json"])
    assert error.value.code == "TG0100"
    assert error.value.hint == "`tunegate report RUN`"
    refuse_removed(["report", "paint"])


def test_a_removed_command_is_no_command() -> None:
    assert not REMOVED_COMMANDS.keys() & {name.split()[0] for name in ALL}


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("tunegate cha", ["champion"]),
        ("tunegate run support-replies-m", ["support-replies-mislabelled"]),
        ("tunegate runs -c other.yaml ", ["alpha", "beta"]),
        ("tunegate runs -c absent.yaml ", []),
        ("tunegate run --unt", ["--until"]),
        ("tunegate export x --format g", ["gguf"]),
        ("tunegate gate ", ["explain"]),
        ("tunegate gate explain --met", ["--metric"]),
        ("tunegate init --from tick", []),
    ],
)
def test_commands_options_choices_and_pipelines_are_completed(
    words: str, wanted: list[str], project: Path, tmp_path: Path
) -> None:
    text = "pipelines:\n  alpha:\n    a: 1\n\n# broken: [\n  beta: {}\nother:\n  gamma: 1\n"
    (tmp_path / "other.yaml").write_text(text)
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" ")), "_TUNEGATE_COMPLETE": "complete_bash"}
    config = {"TUNEGATE_CONFIG": str(project / "pipelines.yaml")}
    done = run_here((), cwd=tmp_path, environ={**os.environ, **config, **asked})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == wanted
