"""A base model without a chat template becomes a chat model: trained, judged, promoted, answering and exported."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.workplace import Workplace


def test_a_base_is_tuned_answers_and_is_exported(empty_workplace: Workplace, tiny_base: Path) -> None:
    from transformers import AutoTokenizer

    def on_base(document: dict[str, Any], **prompt: Any) -> None:
        document["pipelines"]["small"]["train"] |= {"base_model": f"file:{tiny_base}", "prompt": prompt}
        document["pipelines"]["small"]["evaluate"]["arms"] = ["zero_shot"]

    empty_workplace.declare(lambda document: on_base(document, chat_template="chatml"))
    done = empty_workplace.run("run", "small")
    assert done.returncode == 0, done.stderr
    ticket = empty_workplace.folder / "ticket.txt"
    ticket.write_text("Where is my parcel?")
    assert empty_workplace.json("predict", "small", "--file", str(ticket))["version"] == "1"
    exported = empty_workplace.json("model", "export", "small@champion", "--format", "merged", "-o", "merged")
    assert {"model.safetensors", "tokenizer.json", "chat_template.jinja"} <= exported["files"].keys()
    tokenizer = AutoTokenizer.from_pretrained(empty_workplace.folder / "merged")
    turns = [{"role": "user", "content": "Hi"}]
    asked = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert asked == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    refused = empty_workplace.run("model", "export", "small@champion", "--format", "vllm", "-o", "vllm")
    assert "trained embeddings" in refused.stderr
    assert "--format merged" in refused.stderr


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ({"chat_template": "chatlm"}, "did you mean `chatml`?"),
        ({"added_tokens": ["<|end|>"]}, "added_tokens are those of a chat template, and none is declared"),
    ],
)
def test_a_wrong_template_is_named_by_validate(bare_workplace: Workplace, prompt: dict[str, Any], message: str) -> None:
    bare_workplace.declare(lambda document: document["pipelines"]["small"]["train"].update(prompt=prompt))
    done = bare_workplace.run("validate")
    assert done.returncode != 0
    assert message in done.stderr
