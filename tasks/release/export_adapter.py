"""Export the registered adapter with its weights unchanged: for PEFT, and for vLLM with a script that serves it.

It only writes the script; it does not run vLLM.

Source: https://docs.vllm.ai, "LoRA Adapters" (`--lora-modules name=path`, `/v1/load_lora_adapter`) and the arguments of
`vllm serve` (`--max-lora-rank`, `--chat-template`, `--max-model-len`).
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from schemas.errors import ConfigError
from schemas.release import ServingSpec
from schemas.template import PASSAGES, template_columns
from tasks.model.adapter import CONFIG
from tasks.model.base_model import load_tokenizer
from tasks.model.chat_base import RECORD
from tasks.model.chat_codec import ChatCodec, training_template
from tasks.model.model_cache import link_files
from tasks.model.model_uri import HubUri, parse_model_uri
from tasks.model.text_part import TEXT_PART
from tasks.release.bundle import STORE_FILES
from tasks.release.export_format import Exported, export_format
from tasks.release.serve import read_serving
from tasks.storage.files import write_json

BASE = "base"
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Allowed values of `--max-lora-rank`."""
ADAPTER = "adapter"
CARD = "README.md"
TEMPLATE = "chat_template.jinja"
EXAMPLE = {"subject": "My parcel", "body": "Where is it?"}
CHAT = Template("""\
    turns = [{"role": role, "content": prompt[role].format_map(ticket)} for role in ("system", "user") if prompt[role]]
    text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)$opening
    inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt")""")
COMPLETION = """\
    inputs = tokenizer(prompt["user"].format_map(ticket), return_tensors="pt")"""
CODE = Template("""
## Answer a ticket

${passages}```python
import json
from collections import defaultdict

$imports

model = $loader.from_pretrained(".")  # this folder
tokenizer = AutoTokenizer.from_pretrained($tokenizer)
with open("serving.json") as file:
    serving = json.load(file)


def answer(**columns):
    prompt, ticket = serving["prompt"], defaultdict(str, columns)
$prompt
    longest = serving["decoding"]["max_new_tokens"]
    found = model.generate(**inputs, do_sample=False, max_new_tokens=longest, eos_token_id=$end)
    return tokenizer.decode(found[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


print(answer($example))
```
$moved""")


@export_format("peft")
def write_peft(source: Exported, out: Path) -> dict[str, float]:
    """Copy the bundle, and name its base so that PEFT finds it: on the hub by its commit, else in `base/` next to it.

    The text part of a model that also sees images is in `base/`, too: on the hub its weights have other names, and PEFT
    would load nothing of the adapter.

    PEFT looks for a relative path in the current folder, so that of `base/` is absolute: where the export is written.
    Its files are hard links where the file system has them.
    """
    _copy_bundle(source, out)
    place: dict[str, str] = {}
    if source.trained.method != "full":
        uri = parse_model_uri(source.model.uri)
        if isinstance(uri, HubUri) and not (source.model.root / TEXT_PART).is_file():
            place = {"base_model_name_or_path": uri.repo, "revision": uri.revision}
        else:
            (out / BASE).mkdir()
            link_files(source.model.root, out / BASE)
            (out / BASE / "artifact.json").unlink(missing_ok=True)  # the store's own
            place = {"base_model_name_or_path": str(((source.target or out) / BASE).resolve())}
        config = json.loads((out / CONFIG).read_bytes())
        (out / CONFIG).unlink()
        write_json(out / CONFIG, config | place)
    with (out / CARD).open("a", encoding="utf-8") as card:
        card.write(_how_to_answer(source, out, place))
    return {}


def _how_to_answer(source: Exported, out: Path, place: Mapping[str, str]) -> str:
    """The lines that load the model and answer a ticket with the prompt that the gate judged.

    Args:
        place: Where PEFT finds the base; empty for a whole model.
    """
    base, revision = place.get("base_model_name_or_path"), place.get("revision")
    own_tokenizer = base is None or (out / RECORD).is_file()
    at = f", revision={revision!r}" if revision else ""
    moved = "" if base is None or revision else f"\nIf you move this folder, correct `{CONFIG}` and the path above.\n"
    package, loader = ("transformers", "AutoModelForCausalLM") if base is None else ("peft", "AutoPeftModelForCausalLM")
    serving = read_serving(source.bundle.root)
    codec = ChatCodec.of(
        load_tokenizer(source.model.model_copy(update={"root": out}) if own_tokenizer else source.model),
        serving.trained.format,
    )
    opening = f" + {codec.turn.opening!r}" if codec.turn.opening else ""
    columns = template_columns(serving.prompt.user)
    example = ", ".join(f"{name}={EXAMPLE.get(name, '...')!r}" for name in columns if name != PASSAGES)
    found = "Its prompts show passages of articles: only tunegate finds them. Here they are empty.\n\n"
    imports = [f"from {package} import {loader}", "from transformers import AutoTokenizer"]
    if base is None:
        imports = [f"from transformers import {loader}, AutoTokenizer"]
    return CODE.substitute(
        imports="\n".join(imports),
        loader=loader,
        tokenizer='"."' if own_tokenizer else f"{base!r}{at}",
        prompt=CHAT.substitute(opening=opening) if serving.trained.format == "instruction" else COMPLETION,
        end=codec.end_id,
        example=example,
        passages=found if PASSAGES in columns else "",
        moved=moved,
    )


@export_format("vllm")
def write_vllm(source: Exported, out: Path) -> dict[str, float]:
    """Write the adapter, the base's chat template, and `serve.sh`, which serves both by the candidate's names."""
    names = [*source.aliases, f"version-{source.version}"]
    _write_server([Module(source, ADAPTER, tuple(names))], out)
    return {}


def write_vllm_together(modules: Sequence[Module], out: Path) -> None:
    """Write the adapters of several candidates on one base, its chat template, and `serve.sh`, which serves them all.

    Raises:
        ConfigError: TG0111, they have different bases; TG0185, vLLM would not answer as the gate judged.
    """
    first = modules[0].source
    for module in modules:
        if module.source.model.digest != first.model.digest:
            raise ConfigError(
                f"{module.folder} has another base model than {modules[0].folder}: sha256 "
                f"{module.source.model.digest[:12]}, not {first.model.digest[:12]}",
                code="TG0111",
                where="export --format vllm",
                hint="export candidates of different bases into folders of their own",
            )
    _write_server(modules, out)


@dataclass(frozen=True)
class Module:
    """An adapter as vLLM serves it."""

    source: Exported
    folder: str
    """In the exported folder."""
    names: tuple[str, ...]
    """In requests."""


def _write_server(modules: Sequence[Module], out: Path) -> None:
    servings = [read_serving(module.source.bundle.root) for module in modules]
    rank = max(
        check_servable(serving, each.source.bundle.root) for serving, each in zip(servings, modules, strict=True)
    )
    chats = any(serving.trained.format == "instruction" for serving in servings)
    model = modules[0].source.model
    template = training_template(ChatCodec.of(load_tokenizer(model), "instruction")) if chats else None
    for module in modules:
        (out / module.folder).mkdir(parents=True)
        _copy_bundle(module.source, out / module.folder)
    if template is not None:
        (out / TEMPLATE).write_text(template, encoding="utf-8")
    named = [(name, module.folder) for module in modules for name in module.names]
    script = out / "serve.sh"
    own_tokenizer = (modules[0].source.bundle.root / RECORD).is_file()
    text = launch_script(
        servings[0], named, max_rank=rank, has_template=template is not None,
        tokenizer=modules[0].folder if own_tokenizer else None,
    )  # fmt: skip
    script.write_text(text, encoding="utf-8")
    script.chmod(0o755)


def check_servable(serving: ServingSpec, bundle: Path) -> int:
    """The `--max-lora-rank` that the adapter needs.

    Raises:
        ConfigError: TG0185, vLLM would not answer as the model that the gate judged.
    """
    method = serving.trained.method
    if method != "lora":
        why = "has no adapter" if method == "full" else "needs its 4-bit base, and vLLM would load another one"
        raise _not_servable(f"method {method} {why}")
    settings: dict[str, Any] = json.loads((bundle / CONFIG).read_bytes())
    if settings.get("use_dora"):
        raise _not_servable("vLLM does not support DoRA")
    if settings.get("trainable_token_indices"):
        raise _not_servable("the adapter has trained embeddings, of the tokens that its chat template added")
    ranks = [rank for rank in RANKS if rank >= settings["r"]]
    if not ranks:
        raise _not_servable(f"rank {settings['r']} exceeds vLLM's maximum, {RANKS[-1]}")
    return ranks[0]


def launch_script(
    serving: ServingSpec,
    modules: Sequence[tuple[str, str]],
    *,
    max_rank: int,
    has_template: bool,
    tokenizer: str | None = None,
) -> str:
    """A shell script to run in the exported folder, with the base model's folder in BASE.

    Args:
        modules: Names in requests (aliases and versions), each with the folder of its adapter.
        max_rank: From `check_servable`.
        tokenizer: Folder of an adapter with a tokenizer, whose control tokens may differ from the base's; else None.
    """
    base = shlex.quote(serving.base.uri.split("#")[0])
    folder = (
        f"the text part of {base}: `base/` of an export --format peft," if TEXT_PART in serving.base_files else base
    )
    listed = " ".join(shlex.quote(f"{name}={folder}") for name, folder in modules)
    flags = [
        'vllm serve "$BASE"',
        "--host 127.0.0.1",
        "--enable-lora",
        f"--max-lora-rank {max_rank}",
        f"--lora-modules {listed}",
        f"--max-model-len {serving.base.context_length}",
        *([f"--chat-template {TEMPLATE}"] if has_template else []),
        *([f"--tokenizer {tokenizer}"] if tokenizer else []),
    ]
    return "\n".join(
        [
            "#!/bin/sh",
            "# Serves the base model with the exported adapters: a request selects one with `model`.",
            f"# BASE: folder of {folder} whose files have the sha256 of {modules[0][1]}/serving.json.",
            "# Use temperature 0, as the gate did. After a promotion export again and restart; or start with",
            "# VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and post {lora_name, lora_path} to /v1/unload_lora_adapter and",
            "# /v1/load_lora_adapter (then anyone who can reach the port can do the same).",
            "# vLLM has one key for all adapters (--api-key): who reaches the port reaches every one of them.",
            "set -eu",
            'cd "$(dirname "$0")"',
            ': "${BASE:?set it to the folder of the base model}"',
            "exec " + " \\\n  ".join(flags),
            "",
        ]
    )


def _not_servable(why: str) -> ConfigError:
    return ConfigError(
        f"cannot export for vLLM: {why}; supported: an adapter of method lora without DoRA, rank at most {RANKS[-1]}",
        code="TG0185",
        where="export --format vllm",
        hint="use --format merged, and serve it with `vllm serve FOLDER`",
    )


def _copy_bundle(source: Exported, out: Path) -> None:
    """Copy the registered files and add a model card, which is none of them: it has the verdict."""
    for path in sorted(source.bundle.root.iterdir()):
        if path.is_file() and path.name not in STORE_FILES:
            shutil.copyfile(path, out / path.name)
    (out / CARD).write_text(_model_card(source), encoding="utf-8")


def _model_card(source: Exported) -> str:
    serving = read_serving(source.bundle.root)
    trained = serving.trained
    lines = [
        "---",
        f"base_model: {serving.base.uri.split('#')[0]}",
        f"library_name: {'transformers' if trained.method == 'full' else 'peft'}",
        "tags: [tunegate, customer-support]",
        "---",
        "",
        f"# {serving.name}",
        "",
        f"Method {trained.method}, format {trained.format}: {trained.n_trainable:,} trained parameters, "
        + (
            f"{trained.n_steps:,} steps, {trained.n_tokens:,} tokens."
            if trained.external is None
            else f"trained elsewhere ({trained.external})."
        ),
        "",
        *([f"Verdict of the gate: {source.verdict}", ""] if source.verdict else []),
        "Generate answers as `serving.json` says: with its prompt, greedily, with at most "
        f"{serving.decoding.max_new_tokens} new tokens, on the base model whose files have the sha256 listed there.",
        "",
        "Redaction by patterns leaves the names of people in the training texts: only `redact.names` replaces them, "
        "and not all. The model may repeat what it learned from.",
        "",
    ]
    return "\n".join(lines)
