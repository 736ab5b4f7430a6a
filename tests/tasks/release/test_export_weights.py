"""Ollama's template writes the same text as training, or there is no Modelfile."""

import pytest

from schemas.artifacts import ModelRef
from schemas.errors import ConfigError
from tasks.model.base_model import load_tokenizer
from tasks.model.chat_codec import ChatCodec
from tasks.model.turn_texts import read_turn_texts
from tasks.release.export_weights import ollama_template

SMOLLM2_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou "
    "are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + "
    "message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def _as_go(template: str, turns: list[dict[str, str]]) -> str:
    """Apply the few actions of Go's text/template that our Modelfiles use, with Ollama's variables."""
    system = "\n\n".join(turn["content"] for turn in turns if turn["role"] == "system")
    head, rest = template.split("{{ range .Messages }}")
    with_system, bare = head.removeprefix("{{ if .System }}").removesuffix("{{ end }}").split("{{ else }}")
    body, end = rest.rsplit("{{ end }}{{ end }}", 1)
    user, assistant = body.removeprefix('{{ if eq .Role "user" }}').split('{{ else if eq .Role "assistant" }}')
    around = {"user": user, "assistant": assistant, "system": ""}
    body = "".join(around[turn["role"]].replace("{{ .Content }}", turn["content"]) for turn in turns)
    return (with_system.replace("{{ .System }}", system) if system else bare) + body + end


@pytest.mark.parametrize("template", [None, SMOLLM2_TEMPLATE])
def test_ollama_writes_the_training_template(tiny_model: ModelRef, template: str | None) -> None:
    tokenizer = load_tokenizer(tiny_model)
    tokenizer.chat_template = template or tokenizer.chat_template
    codec = ChatCodec.of(tokenizer, "instruction")
    go = ollama_template(read_turn_texts(codec))
    for roles in (["user"], ["system", "user"], ["system", "user", "assistant", "user"]):
        turns = [{"role": role, "content": f"{role} {number}\nmore"} for number, role in enumerate(roles)]
        assert _as_go(go, turns) == codec.text(turns, generation=True)


def test_a_template_that_does_more_than_turns_is_refused_for_ollama(tiny_model: ModelRef) -> None:
    tokenizer = load_tokenizer(tiny_model)
    tokenizer.chat_template = str(tokenizer.chat_template).replace(
        "message['content']", "(message['content'] if loop.last or loop.first else '...')"
    )
    with pytest.raises(ConfigError, match=r"TG0185.*not a plain sequence of turns"):
        read_turn_texts(ChatCodec.of(tokenizer, "instruction"))
