"""Ask a person in the terminal which answers are right: one screen per item, a key per choice.

Knows nothing of arms: the answers are shuffled before. Keys come from the terminal one by one, or as lines of a pipe.
"""

import difflib
import re
import sys
from collections.abc import Callable, Mapping, Sequence

import click
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from flows.cli.output import out
from tasks.assess.label_files import LETTERS, Sheet

Save = Callable[[Mapping[str, bool | None]], None]
_WORDS = {"s": "skip", "u": "undo", "q": "quit"}


def ask_labels(
    sheets: Sequence[Callable[[], Sheet]], *, save: Save, is_enough: Callable[[], bool], n_before: int = 0
) -> None:
    """Show each item and save each choice at once.

    Args:
        sheets: Make the items, when they are shown.
        save: Stores labels; None takes one back.
        is_enough: Whether no further label is needed; called before each item.
        n_before: Items that this rater labelled earlier, for the progress.
    """
    console, place, done, skipped = out(), 0, list[int](), set[int]()
    total = n_before + len(sheets)
    while place < len(sheets):
        if is_enough():
            if not done or not _is_undone(console):
                return
            word: str | None = "undo"
        else:
            sheet = sheets[place]()
            left = f"{len(sheets) - len(done)} left" + (f", {len(skipped)} skipped" if skipped else "")
            _show(console, sheet, f"{n_before + len(done) + 1} of {total}  ({left})")
            word = _read(console, sheet, may_undo=bool(done))
        if word is None or word == "quit":
            return
        if word == "skip":
            skipped.add(place)
            place += 1
        elif word == "undo":
            place = done.pop()
            save(dict.fromkeys((label for label, _ in sheets[place]().answers), None))
        else:
            save(sheet.votes(word) or {})
            done.append(place)
            skipped.discard(place)
            place += 1


def _is_undone(console: Console) -> bool:
    """Whether the person takes the label back that made the rest superfluous."""
    said = "the labels that are left can neither promote nor prevent it"
    console.print(f"{said}   [u]ndo the last, any other key ends", markup=False)
    return _next_word(console, one_key=True) == "undo"


def _show(console: Console, sheet: Sheet, progress: str) -> None:
    if console.is_terminal:
        console.clear()
    console.rule(escape(progress), align="left")
    console.print(sheet.question, markup=False)
    texts = [text for _, text in sheet.answers]
    for place, (letter, text) in enumerate(zip(LETTERS, texts, strict=False)):
        console.rule(f"[bold]{letter.upper()}[/bold]", align="left", style="dim")
        other = texts[1 - place] if len(texts) == 2 else text
        console.print(_marked(text, other))
    console.rule(style="dim")
    console.print(_keys(len(texts)), markup=False)


def _marked(text: str, other: str) -> Text:
    """The text, with the words that the other has not in bold."""
    words, others = _words(text), _words(other)
    shown = Text()
    for kind, start, stop, _, _ in difflib.SequenceMatcher(None, words, others, autojunk=False).get_opcodes():
        shown.append("".join(words[start:stop]), style="" if kind == "equal" else "bold underline")
    return shown


def _words(text: str) -> list[str]:
    return re.findall(r"\s+|\S+", text)


def _keys(n_answers: int) -> str:
    letters = " ".join(f"[{letter}]" for letter in LETTERS[:n_answers])
    several = "" if n_answers < 2 else "  [2] both" if n_answers == 2 else "  several: type their letters  [all]"
    none = "neither" if n_answers == 2 else "wrong" if n_answers == 1 else "none"
    return f"right: {letters}{several}  [0] {none}   [s]kip  [u]ndo  [q]uit"


def _read(console: Console, sheet: Sheet, *, may_undo: bool) -> str | None:
    """The next choice that can be used; None at the end of the input."""
    while (word := _next_word(console, one_key=len(sheet.answers) <= 2)) is not None:
        if word in ("skip", "quit") or (word == "undo" and may_undo) or sheet.votes(word) is not None:
            return word
        why = "there is nothing to undo" if word == "undo" else f"{word[:20]!r} is no choice"
        console.print(f"[yellow]{escape(why)}[/yellow]")
    return None


def _next_word(console: Console, *, one_key: bool) -> str | None:
    if one_key and console.is_terminal and sys.stdin.isatty():
        try:
            key = click.getchar()
        except (EOFError, KeyboardInterrupt):
            return None
        word = "quit" if key in ("\x1b", "\x03", "\x04") else key.lower()
    else:
        line = sys.stdin.readline()
        if not line:
            return None
        word = line.strip().lower()
    return _WORDS.get(word, word)
