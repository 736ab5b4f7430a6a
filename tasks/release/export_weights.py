"""Export whole weights, with the adapter merged into the base: for any program, and for Ollama with a Modelfile.

The Modelfile has training's template, stop tokens and greedy decoding; Ollama is not run.

Source: https://docs.ollama.com/modelfile and Ollama's template/template.go (`.System` joins the system messages); its
convert/tokenizer.go has the pre-tokenizers that it knows.
"""

from dataclasses import asdict
from pathlib import Path

from schemas.errors import ConfigError
from schemas.release import ServingSpec
from schemas.template import template_columns
from tasks.model.base_model import load_tokenizer
from tasks.model.chat_codec import ChatCodec
from tasks.model.merge import held_out_texts, write_merged
from tasks.model.turn_texts import TurnTexts, read_turn_texts
from tasks.release.export_format import Exported, export_format, gone
from tasks.release.serve import read_serving
from tasks.storage.sealed_folder import verify

_ABOUT = (
    "# Ollama converts the weights in this folder itself: ollama create NAME -f Modelfile",
    "# It supports the pre-tokenizers of Llama 3, Qwen2 and DeepSeek. For any other, such as SmolLM's, it uses its",
    "# default, which splits numbers differently. To get training's tokens, run llama.cpp's converter here,",
    "# python convert_hf_to_gguf.py . --outfile model.gguf, and change the next line to FROM ./model.gguf",
)
_UNSAFE = ("{{", "}}", '"""')


@export_format("merged")
def write_merged_weights(source: Exported, out: Path) -> dict[str, float]:
    """Write the weights with config and tokenizer, and compare them with what the gate judged."""
    if source.prompts is None:
        raise gone("the set of held-out prompts, needed to compare the converted model,")
    verify(source.prompts.root)
    written = write_merged(
        source.model, source.trained, texts=held_out_texts(source.prompts, source.model), stored=source.stored,
        dtype=read_serving(source.bundle.root).decoding.dtype, out=out, report=source.report,
    )  # fmt: skip
    return {name: float(figure) for name, figure in asdict(written).items()}


@export_format("ollama")
def write_ollama(source: Exported, out: Path) -> dict[str, float]:
    """Write the weights and a Modelfile."""
    serving = read_serving(source.bundle.root)
    codec = ChatCodec.of(load_tokenizer(source.model), serving.trained.format)
    text = modelfile(serving, codec)  # before the weights, since the template may be refused
    (out / "Modelfile").write_text(text, encoding="utf-8")
    return write_merged_weights(source, out)


def modelfile(serving: ServingSpec, codec: ChatCodec) -> str:
    """The Modelfile's text.

    Raises:
        ConfigError: TG0185, the template cannot be translated to Ollama's language.
    """
    template = "{{ .Prompt }}" if serving.trained.format == "completion" else ollama_template(read_turn_texts(codec))
    lines = [*_ABOUT, "FROM .", f'TEMPLATE """{template}"""']
    if serving.prompt.system and not template_columns(serving.prompt.system):
        lines.append(f'SYSTEM """{_safe(serving.prompt.system)}"""')
    ends = {codec.end_id, codec.tokenizer.eos_token_id}
    stops = [str(codec.tokenizer.convert_ids_to_tokens(number)) for number in sorted(ends - {None})]
    lines += [f'PARAMETER stop "{_safe(stop)}"' for stop in stops]
    lines += [
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1.0",
        f"PARAMETER num_predict {serving.decoding.max_new_tokens}",
        f"PARAMETER num_ctx {serving.base.context_length}",
    ]
    return "\n".join(lines) + "\n"


def ollama_template(texts: TurnTexts) -> str:
    """The same turns in Go's text/template language; literals are unchanged, nothing is trimmed.

    Raises:
        ConfigError: TG0185, a literal would end the template or act as an action.
    """
    system, user, assistant = (
        f"{_safe(before)}{action}{_safe(after)}"
        for (before, after), action in (
            (texts.system, "{{ .System }}"), (texts.user, "{{ .Content }}"), (texts.assistant, "{{ .Content }}")
        )
    )  # fmt: skip
    head = "{{ if .System }}" + system + "{{ else }}" + _safe(texts.bare) + "{{ end }}"
    turn = '{{ if eq .Role "user" }}' + user + '{{ else if eq .Role "assistant" }}' + assistant + "{{ end }}"
    return head + "{{ range .Messages }}" + turn + "{{ end }}" + _safe(texts.generation)


def _safe(text: str) -> str:
    for mark in _UNSAFE:
        if mark in text:
            raise ConfigError(
                f"the template or the system text contains {mark!r}, which has a special meaning in a Modelfile",
                code="TG0185",
                where="chat template",
                hint="export it as `merged`: llama.cpp's converter copies the template unchanged",
            )
    return text
