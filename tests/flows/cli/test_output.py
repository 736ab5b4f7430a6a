"""What commands print: no control sequence in a ticket or file reaches the terminal."""

import io
import json
import sys

import pytest

from flows.cli.output import out, print_json, print_rows, talk, write

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
    print_rows([{"body": HOSTILE}], ("body",))
    out().print(f"body  {HOSTILE}", markup=False, soft_wrap=True)
    talk().print(HOSTILE, markup=False)
    write(HOSTILE, sys.stdout)
    printed = capsys.readouterr()
    for text in map(without_styling, printed):
        assert "Wo ist mein Paket?" in text.replace("\n", " ")
        assert not [each for each in CONTROLS if each in text]


def test_json_escapes_control_sequences(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"body": HOSTILE})
    printed = capsys.readouterr().out
    assert json.loads(printed) == {"body": HOSTILE}
    assert not [each for each in CONTROLS if each in printed]


def test_ordinary_text_is_printed_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    text = "zwei\u00a0Stück, 10\u202f000 €, می\u200cخواهم, 荷物"
    out().print(text, markup=False, soft_wrap=True)
    assert capsys.readouterr().out == f"{text}\n"
    stream = io.StringIO()
    write(text, stream)
    assert stream.getvalue() == text
