"""The command and YAML blocks of README.md, docs/ and the other pages, for the tests that run them.

A block in `bash` contains commands. One in `console` is an overview: a command, two spaces or more, what it does, with
` | ` between alternatives; or, if lines start with `$ `, these commands and their output. After the language there may
be `scene="NAME"`: it needs a server, a file or minutes, and `tests/system/docs/test_scenes.py` has a test that
provides them; or `no-run="reason"`: its commands are parsed and never run. YAML is a whole file, or the body of a
pipeline that extends `support-replies`.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import typer
from typer.main import get_command

_FENCE = re.compile(
    r"^```(?P<language>\w*)(?: (?:no-run=\"(?P<why>[^\"]+)\"|scene=\"(?P<scene>\w+)\"))?\n(?P<text>.*?)^```$",
    re.M | re.S,
)
_INLINE = re.compile(r"`((?:\w+=\S+ )?(?:tunegate|make) [^`]+)`")
COMMANDS = ("bash", "console")


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        why_not: Why its commands are never run; empty if they are run.
        scene: The test that runs it; empty for a block that needs only tickets and a model.
    """

    page: str
    line: int
    language: str
    why_not: str
    scene: str
    text: str

    @property
    def place(self) -> str:
        """The block's location, for messages."""
        return f"{self.page}:{self.line}"

    def commands(self) -> list[str]:
        """The commands, each on one line, without comments."""
        text = self.text.replace("\\\n", " ")
        if self.language == "console" and (typed := re.findall(r"^\$ (.+)$", text, re.M)):
            return typed
        if self.language == "console":
            return [each for line in text.splitlines() for each in _alternatives(re.split(r" {2,}", line.strip())[0])]
        return [line for line in _whole_lines(text) if line]


def blocks(project: Path) -> list[Block]:
    """Every fenced block of every page."""
    return [block for path in pages(project) for block in _blocks_of(path, project)]


def examples_of_contributing(project: Path) -> dict[str, str]:
    """The modules of CONTRIBUTING.md: the path in their first line -> the text."""
    texts = [block.text for block in blocks(project) if block.page == "CONTRIBUTING.md" and block.language == "python"]
    return {text.splitlines()[0].removeprefix("# "): text for text in texts}


def pages(project: Path) -> list[Path]:
    """Pages for users and contributors; decisions are history and may name removed things."""
    others = (project / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/README.md"))
    return [*others, *(path for path in sorted((project / "docs").rglob("*.md")) if path.parent.name != "decisions")]


def inline_commands(path: Path) -> list[tuple[int, str]]:
    """Line and text of each command in the running text and in tables: `tunegate plan`."""
    text = _FENCE.sub(lambda block: "\n" * block.group().count("\n"), path.read_text(encoding="utf-8"))
    return [(text.count("\n", 0, found.start()) + 1, " ".join(found[1].split())) for found in _INLINE.finditer(text)]


def unknown(app: typer.Typer, words: list[str], *, complete: bool) -> str:
    """The argument parser's complaint about `tunegate WORDS`; empty if there is none.

    Args:
        complete: Whether it is a command to type; a mention may leave arguments out.
    """
    command = _parser(app)
    words = [word for word in words if word != "--debug"]
    if words and words[0].isupper() and not complete:
        return ""  # `tunegate COMMAND --help`
    while hasattr(command, "commands"):
        if not words or words[0] not in command.commands:
            return f"no command {' '.join(words[:1])!r}" if words and not words[0].startswith("-") else ""
        command = command.commands[words.pop(0)]
    command = command.load() if hasattr(command, "load") else command
    if not complete:
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        options = [word.split("=")[0] for word in words if word.startswith("-") and len(word) > 1]
        return ", ".join(option for option in options if option not in known | {"-h", "--help"})
    try:
        command.make_context(command.name, list(words))
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        return str(error.format_message())
    return ""


@cache
def _parser(app: typer.Typer) -> Any:
    """The argument parser; every command has its `params`, a group has `commands`."""
    return get_command(app)


def _blocks_of(path: Path, project: Path) -> Iterator[Block]:
    text = path.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        name = path.relative_to(project).as_posix()
        yield Block(name, line, found["language"], found["why"] or "", found["scene"] or "", found["text"])


def _whole_lines(text: str) -> Iterator[str]:
    """Lines without comments; a line with an open quote is joined with the next."""
    pending = ""
    for line in text.splitlines():
        pending = f"{pending}\n{line}" if pending else line
        try:
            words = shlex.split(pending, comments=True)
        except ValueError:
            continue
        yield shlex.join(words)
        pending = ""
    assert not pending, f"an open quote: {pending}"


def _alternatives(line: str) -> Iterator[str]:
    """`tunegate up | down` -> `tunegate up`, `tunegate down`; options as alternatives keep the command."""
    first, *others = line.split(" | ")
    yield first
    start = first.split()[:2] if others and others[0].startswith("-") else first.split()[:1]
    yield from (" ".join([*start, other]) for other in others)
