"""Answer tickets with a model that tunegate registered in MLflow, where nothing of tunegate is installed.

MLflow copies this one file next to the model and imports it by its name. It needs torch, transformers, peft and what
these bring along; it imports nothing of tunegate, and a user's own module is unlikely to have its name. It answers as
`tasks/release/serve.py` does, with plain `transformers` in place of the decoding kernels: a test compares both.

The base model is looked for, in this order, in the folder that the variable TUNEGATE_BASE_MODEL names, in the folder of
`load_model(..., model_config={"base_model": FOLDER})`, which is by default where the model was registered from, and on
the Hugging Face hub, if it comes from there. It is refused if a file has another sha256 than the one that was judged.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import string
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

BASE_VARIABLE = "TUNEGATE_BASE_MODEL"
DTYPE_VARIABLE = "TUNEGATE_AUTO_DTYPE"
BASE_KEY = "base_model"
MARKERS = ("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "<<SYS>>", "<</SYS>>")
RARE = "\U00013000"
FIXED_DAY = (
    "{%- macro strftime_now(form) -%}{{ form|replace('%d', '26')|replace('%b', 'Jul')|replace('%B', 'July')"
    "|replace('%m', '07')|replace('%Y', '2024')|replace('%H', '00')|replace('%M', '00')|replace('%S', '00') }}"
    "{%- endmacro -%}"
)
"""These three are those of `tasks/model/chat_codec.py`."""
TEXT_PART = "text_part.json"
"""That of `tasks/model/text_part.py`: at the base's address is a larger model."""
CHAT_FILES = ("chat.json", "added_rows.safetensors", "chat_template.jinja", "tokenizer.json", "tokenizer_config.json")


def _load_pyfunc(data_path: str, model_config: Mapping[str, Any] | None = None) -> LoadedModel:
    """MLflow's hook for a `loader_module`."""
    return LoadedModel(Path(data_path), base=(model_config or {}).get(BASE_KEY))


class LoadedModel:
    """A loaded model; `predict` is what MLflow calls.

    Raises:
        ValueError: a file of the model or of its base has another sha256 than the one that was judged.
        FileNotFoundError: the base model is nowhere to be found.
        NotImplementedError: the prompt shows passages of help articles, whose search only tunegate itself has.
    """

    def __init__(self, folder: Path, *, base: str | None = None) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        manifest = json.loads((folder / "MANIFEST.json").read_bytes())["files"]
        _check(folder, {name: entry["sha256"] for name, entry in manifest.items()})
        if more := {path.name for path in folder.iterdir()} - {*manifest, "MANIFEST.json", "artifact.json"}:
            raise ValueError(f"{folder} has a file that the model was not judged with: {min(more)}")
        serving = json.loads((folder / "serving.json").read_bytes())
        if serving.get("search"):
            raise NotImplementedError("this model's prompt shows passages of help articles: serve it with tunegate")
        self._prompt, self._decoding = serving["prompt"], serving["decoding"]
        trained, self._context = serving["trained"], serving["base"]["context_length"]
        self._is_chat, method = trained["format"] == "instruction", trained["method"]
        dtype = _dtype(self._decoding["dtype"])
        if self._decoding.get("threads"):
            torch.set_num_threads(self._decoding["threads"])
        with tempfile.TemporaryDirectory(prefix="tunegate-base-") as view:
            # Only files that the candidate was judged with: any other could change the model.
            where = folder if method == "full" else _linked(serving, base, folder, Path(view))
            options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, "local_files_only": True}
            if method == "qlora":
                options |= _four_bits(folder, dtype)
            self._tokenizer = AutoTokenizer.from_pretrained(where, local_files_only=True)
            model = AutoModelForCausalLM.from_pretrained(where, **options)
            _fill_rows(model, where)
            if method != "full":
                from peft import PeftModel

                with warnings.catch_warnings():
                    warnings.filterwarnings("error", message=".*missing adapter keys.*")
                    model = PeftModel.from_pretrained(model, folder)
            if method != "qlora":
                model.to("cuda" if torch.cuda.is_available() else "cpu")
        self._model = model.eval()
        self._special, self._control = _controls(self._tokenizer, self._template() if self._is_chat else "")
        self._opening, end = self._turn_form() if self._is_chat else ("", None)
        configured = getattr(model.generation_config, "eos_token_id", None)
        stops = {*(configured if isinstance(configured, list) else [configured]), self._tokenizer.eos_token_id, end}
        self._stops = sorted(each for each in stops if each is not None)

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> list[str]:
        """The reply to each ticket, in order.

        Args:
            model_input: A DataFrame or a list of rows with ticket columns (`subject`, `body`, ...), or one row.

        Raises:
            ValueError: a ticket has no text, is too long for the model, or has a control token in its text.
        """
        if hasattr(model_input, "to_dict"):
            model_input = model_input.astype(object).where(model_input.notna(), None).to_dict(orient="records")
        rows = [model_input] if isinstance(model_input, str | Mapping) else list(model_input)
        tickets = [{"body": row} if isinstance(row, str) else dict(row) for row in rows]
        return [self._answer(self.prompt_ids(ticket)) for ticket in tickets]

    def prompt_ids(self, ticket: Mapping[str, Any]) -> list[int]:
        """The token ids that the model reads for a ticket."""
        shown = {"messages", *_names(self._prompt["user"])}
        if not any(str(ticket.get(name) or "").strip() for name in shown):
            raise ValueError(f"the ticket has no text in {', '.join(sorted(shown))}")
        if not self._is_chat:
            ids = list(self._tokenizer.encode(self._plain(_filled(self._prompt["user"], ticket))))
            while ids and ids[-1] == self._tokenizer.eos_token_id:
                ids.pop()
            if any(number in self._special for number in ids[1:]):
                raise ValueError("the ticket's text contains a control token of the model")
            return ids
        turns = self._turns(ticket)
        ids = self._encoded([{**turn, "content": self._plain(turn["content"])} for turn in turns])
        bare = self._encoded([{**turn, "content": "x"} for turn in turns])
        if [each for each in ids if each in self._special] != [each for each in bare if each in self._special]:
            raise ValueError("the ticket's text contains a control token of the model")
        return ids

    def _turns(self, ticket: Mapping[str, Any]) -> list[dict[str, str]]:
        system = _filled(self._prompt["system"], ticket)
        if ticket.get("messages"):  # its own conversation; the last turn is the answer to learn
            turns = [{"role": turn["role"], "content": turn["content"]} for turn in json.loads(ticket["messages"])]
            for turn in turns:
                turn["content"] = turn["content"].strip() if turn["role"] == "assistant" else turn["content"]
            turns = turns[:-1] if turns[-1]["role"] == "assistant" else turns
        else:
            turns = [{"role": "user", "content": _filled(self._prompt["user"], ticket)}]
        has_own = not system or turns[0]["role"] == "system"
        return turns if has_own else [{"role": "system", "content": system}, *turns]

    def _answer(self, ids: list[int]) -> str:
        import torch

        longest = self._decoding["max_new_tokens"]
        if len(ids) + longest > self._context:
            raise ValueError(
                f"the prompt has {len(ids)} tokens and needs {longest} more; the context is {self._context}"
            )
        given = torch.tensor([ids], device=self._model.device)
        with torch.inference_mode():
            # One at a time, greedily, without what a base's generation_config would add to that.
            written = self._model.generate(
                input_ids=given, attention_mask=torch.ones_like(given), max_new_tokens=longest, do_sample=False,
                num_beams=1, temperature=None, top_p=None, top_k=None, repetition_penalty=1.0,
                eos_token_id=self._stops, pad_token_id=self._stops[0],
            )[0, len(ids) :].tolist()  # fmt: skip
        answer = written[:-1] if written and written[-1] in self._stops else written
        return str(self._tokenizer.decode(answer, skip_special_tokens=True))

    def _template(self) -> str:
        template = str(self._tokenizer.chat_template)
        return FIXED_DAY + template if "strftime_now" in template else template

    def _text(self, turns: Sequence[Mapping[str, str]], *, generation: bool) -> str:
        template = self._template()
        return str(
            self._tokenizer.apply_chat_template(
                list(turns), chat_template=template, tokenize=False, add_generation_prompt=generation
            )
        )

    def _encoded(self, turns: Sequence[Mapping[str, str]]) -> list[int]:
        text = self._text(turns, generation=True) + self._opening
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _turn_form(self) -> tuple[str, int]:
        """What the template writes before an answer, and the token that ends it."""
        question, answer = {"role": "user", "content": "x"}, {"role": "assistant", "content": "Zanswerq"}
        before = self._text([question], generation=True)
        whole = self._text([question, answer], generation=False)
        opening, _, after = whole[len(before) :].partition(answer["content"])
        if not after:  # only the next turn writes the token
            after = self._text([question, answer, question], generation=False).partition(answer["content"])[2]
        return opening, int(self._tokenizer.encode(after, add_special_tokens=False)[0])

    def _plain(self, text: str) -> str:
        """Break up control texts: `<|im_end|>` becomes `< |im_end|>`, which cannot end a turn."""
        while self._control is not None and self._control.search(text):
            broken = self._control.sub(lambda found: f"{found[0][0]} {found[0][1:]}" if found[0][1:] else " ", text)
            if broken == text:
                break
            text = broken
        return text


def _names(template: str) -> list[str]:
    return [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]


def _filled(template: str, ticket: Mapping[str, Any]) -> str:
    """Fill `{column}` with the ticket's column; braces in its text have no meaning."""
    parts = []
    for literal, name, _, _ in string.Formatter().parse(template):
        value = None if name is None else ticket.get(name)
        text = "" if value is None else value.isoformat() if isinstance(value, date) else str(value)
        parts.append(literal + text)
    return "".join(parts)


def _controls(tokenizer: Any, template: str) -> tuple[frozenset[int], re.Pattern[str] | None]:
    """The ids of control tokens, and a pattern for their texts."""
    added = tokenizer.added_tokens_decoder
    special = {number for number, token in added.items() if token.special} | set(tokenizer.all_special_ids)
    if tokenizer.unk_token_id in tokenizer.encode(RARE, add_special_tokens=False):
        special -= {tokenizer.unk_token_id}
    texts = {token.content for token in added.values() if token.special} | set(tokenizer.all_special_tokens)
    texts |= {marker for marker in MARKERS if marker in template}
    longest_first = sorted((text for text in texts if text.strip()), key=lambda text: (-len(text), text))
    return frozenset(special), re.compile("|".join(map(re.escape, longest_first))) if longest_first else None


def _check(folder: Path, files: Mapping[str, str]) -> None:
    for name, expected in sorted(files.items()):
        got = "nothing"
        if Path(name).name == name and (folder / name).is_file():
            with (folder / name).open("rb") as stream:
                got = hashlib.file_digest(stream, "sha256").hexdigest()
        if got != expected:
            raise ValueError(f"{folder / name} has sha256 {got[:12]}, the model was judged with {expected[:12]}")


def _linked(serving: Mapping[str, Any], base: str | None, bundle: Path, view: Path) -> Path:
    """A folder of links to the base's checked files, and to the chat template that was added to it."""
    files = serving["base_files"]
    place = _base_folder(serving["base"]["uri"], base, sorted(files))
    _check(place, files)
    for name in files:
        (view / name).symlink_to((place / name).resolve())
    if (bundle / CHAT_FILES[0]).is_file():
        for name in CHAT_FILES:
            if (bundle / name).is_file():
                (view / name).symlink_to((bundle / name).resolve())
    return view


def _base_folder(uri: str, base: str | None, files: list[str]) -> Path:
    named = os.environ.get(BASE_VARIABLE)
    at_address = uri.removeprefix("file://").removeprefix("file:") if uri.startswith("file:") else None
    for given in (named, base, None if TEXT_PART in files else at_address):
        if given and (given == named or Path(given).is_dir()):
            return Path(given).expanduser()
    if uri.startswith("hf://") and TEXT_PART not in files:
        from huggingface_hub import snapshot_download

        repo, _, revision = uri.removeprefix("hf://").partition("@")
        return Path(snapshot_download(repo, revision=revision, allow_patterns=files))
    raise FileNotFoundError(
        f"the base model {uri.partition('#')[0]} is not here: set {BASE_VARIABLE} to its folder; "
        "`tunegate model export NAME@champion --format peft` writes one"
    )


def _fill_rows(model: Any, folder: Path) -> None:
    """Embeddings of the tokens that an added chat template brought."""
    from safetensors.torch import load_file

    if not (folder / CHAT_FILES[1]).is_file():
        return
    added = load_file(folder / CHAT_FILES[1])
    ids = added["ids"]
    if int(ids.max()) >= len(model.get_input_embeddings().weight):
        model.resize_token_embeddings(int(ids.max()) + 1, mean_resizing=False)
    for embeddings, rows in ((model.get_input_embeddings(), "input"), (model.get_output_embeddings(), "output")):
        if rows in added:
            embeddings.weight.data[ids.to(embeddings.weight.device)] = added[rows].to(embeddings.weight)


def _four_bits(folder: Path, dtype: Any) -> dict[str, Any]:
    import torch
    from transformers import BitsAndBytesConfig

    settings = json.loads((folder / "training.json").read_bytes())["quantization"]
    compute = settings["compute_dtype"]
    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type=settings["type"], bnb_4bit_use_double_quant=settings["double_quant"],
        bnb_4bit_compute_dtype=dtype if compute == "auto" else _dtype(compute),
    )  # fmt: skip
    return {"quantization_config": config, "device_map": {"": "cuda" if torch.cuda.is_available() else "cpu"}}


def _dtype(name: str) -> Any:
    import torch

    if name == "auto":
        name = os.environ.get(DTYPE_VARIABLE) or name
        if name not in ("auto", "float32", "bfloat16"):
            raise ValueError(f"{DTYPE_VARIABLE} should be float32 or bfloat16, got {name[:40]!r}")
    if name != "auto":
        return torch.bfloat16 if name == "bfloat16" else torch.float32
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if os.environ.get("ATEN_CPU_CAPABILITY") in ("default", "avx2"):  # torch's attention in bfloat16 fails then
        return torch.float32
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        flags = set()
    return torch.bfloat16 if flags & {"avx512_bf16", "amx_bf16", "bf16"} else torch.float32
