"""What commands print: no control sequence in a ticket or file reaches the terminal."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.cli.output import Result, TextLine, TextTable, make_folder_for, out, render, talk, write, write_file
from schemas.errors import ConfigError, StorageError

TITLE, CLIPBOARD, CLEAR, C1 = "\x1b]0;owned\x07", "\x1b]52;c;ZXZpbA==\x07", "\x1b[2J", "\x9b31m"
HOSTILE = f"Wo ist mein Paket? {TITLE}{CLIPBOARD}{CLEAR}{C1}\u202egnp.exe"
CONTROLS = ("\x1b", "\x07", "\x9b", "\u202e")


@pytest.fixture(params=["pipe", "terminal"])
def screen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "terminal":
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm-256color")


def without_styling(text: str) -> str:
    """The printed text without the console's own styling."""
    for own in ("\x1b[1m", "\x1b[0m"):
        text = text.replace(own, "")
    return text


@pytest.mark.usefixtures("screen")
def test_no_control_sequence_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    text = [TextTable([{"body": HOSTILE}], ("body",)), f"body  {HOSTILE}", TextLine(HOSTILE, "bold")]
    assert render(Result(None, text, exit_code=3), as_json=False) == 3
    out().print(f"body  {HOSTILE}", markup=False, soft_wrap=True)
    talk().print(HOSTILE, markup=False)
    write(HOSTILE, sys.stdout)
    printed = capsys.readouterr()
    for text in map(without_styling, printed):
        assert "Wo ist mein Paket?" in text.replace("\n", " ")
        assert not [each for each in CONTROLS if each in text]


def test_json_escapes_control_sequences(capsys: pytest.CaptureFixture[str]) -> None:
    assert render(Result({"body": HOSTILE}, ["not printed"], exit_code=3), as_json=True) == 3
    printed = capsys.readouterr().out
    assert json.loads(printed) == {"body": HOSTILE}
    assert not [each for each in CONTROLS if each in printed]


def test_ordinary_text_is_printed_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    text = "zwei\u00a0Stück, 10\u202f000 €, می\u200cخواهم, 荷物"
    render(Result(None, [text, TextLine(text)]), as_json=False)
    assert capsys.readouterr().out == f"{text}\n{text}\n"
    stream = io.StringIO()
    write(text, stream)
    assert stream.getvalue() == text


def test_a_file_is_written_below_new_folders_and_replaced_only_if_that_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "page.html"
    write_file(path, b"one", replace=False)
    with pytest.raises(ConfigError, match=r"TG0189.*is there already"):
        write_file(path, b"two", replace=False)
    assert path.read_bytes() == b"one"
    write_file(path, b"two", replace=True)
    assert [each.name for each in path.parent.iterdir()] == ["page.html"]
    assert path.read_bytes() == b"two"


@pytest.mark.parametrize("write_it", [lambda path: write_file(path, b"x", replace=True), make_folder_for])
def test_a_place_that_cannot_be_written_is_named_with_the_reason(
    tmp_path: Path, write_it: Callable[[Path], None]
) -> None:
    (tmp_path / "tickets.csv").write_text("")
    for place in ("tickets.csv/page.html", "tickets.csv/deep/page.html"):
        with pytest.raises(StorageError, match=r"TG0554.*page\.html cannot be written: .*tickets\.csv is not a folder"):
            write_it(tmp_path / place)
    with pytest.raises(StorageError, match=r"TG0554.*cannot be written: "):
        write_it(Path("/proc/none/page.html"))  # root may not make it either


def test_a_folder_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"TG0554.*cannot be written: it is a folder"):
        write_file(tmp_path, b"x", replace=True)
    assert list(tmp_path.parent.glob(".*.tmp")) == []
