"""Commands that cannot do what they are called for end with the code of the reason."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("validate", "-c", "absent.yaml"), "TG0110"),
        (("validate",), "TG0110"),  # the SELECT that the file names is absent
        (("run", "replies", "--until", "finetuning"), "TG0103"),
        (("model", "promote", "replies", "1"), "TG0621"),
        (("model", "rollback", "replies", "--reason", "just trying"), "TG0159"),
        (("model", "feedback", "replies", "absent"), "TG0110"),
        (("model", "feedback", "replies", "feedback"), "TG0164"),  # without a usable line
        (("predict", "replies", "--file", "ticket"), "TG0159"),
        (("data", "funnel", "replies"), "TG0159"),
        (("study", "reproduce", "2026"), "TG0151"),
        (("study", "estimate"), "TG0139"),
        (("study", "estimate", "replies", "--base", "llama-2-7b"), "TG0139"),
    ],
)
def test_a_command_is_refused_with_the_code_of_its_reason(
    refusal: Callable[..., str], tmp_path: Path, words: tuple[str, ...], code: str
) -> None:
    (tmp_path / "ticket").write_text("")
    (tmp_path / "feedback").write_text("{}\n")
    assert f"error[{code}]" in refusal(*words)


@pytest.mark.timeout(60)
def test_feedback_from_a_pipe_or_device_is_refused_at_once(refusal: Callable[..., str], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for file in ("pipe", "/dev/zero"):
        error = refusal("model", "feedback", "replies", file)
        assert "error[TG0110]" in error
        assert "it is a pipe, a device or a socket, not a file" in error
