"""Datasets that other programs' settings name, as one `source`: local files, or a dataset of the hub.

Nothing is fetched and no row is read. Called by `tasks/start/axolotl.py` and `tasks/start/llamafactory.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from tasks.start.draft import Draft, names
from tasks.start.shared_keys import COMMIT, PREFERENCES

_ROLE_KEYS = frozenset({"role", "from"})
_CONTENT_KEYS = frozenset({"content", "value"})
_COLUMNED: Mapping[str, tuple[str, str]] = {
    "alpaca_chat.load_qa": ("question", "answer"),
    "alpaca_w_system.load_open_orca": ("question", "response"),
    "summarizetldr": ("article", "summary"),
    "gpteacher": ("instruction", "response"),
    "jeopardy": ("question", "answer"),
}
"""Type -> columns of the question and of the answer."""
_NO_PROMPT = {"user": "\n", "answer": "{body}"}
_WHOLE_TEXT = "a line break stands for the prompt, and all of the text carries loss"


@dataclass
class Named:
    """One dataset as it is to be read."""

    key: str
    shape: str = "auto"
    columns: dict[str, str] = field(default_factory=dict)
    split: str = "train"
    revision: str | None = None
    prompt: Mapping[str, str] = field(default_factory=dict)
    form: str = "instruction"


def axolotl_datasets(draft: Draft, key: str, value: Any) -> None:
    """`datasets`: each entry, and each of its keys, gets a fate."""
    if not isinstance(value, list):
        draft.lacks(key, "it must be a list")
        return
    for index, entry in enumerate(value):
        where = f"{key}[{index}]"
        if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
            draft.lacks(where, "an entry needs a path")
            continue
        named = _axolotl_named(draft, where, entry)
        if named is not None:
            _take(draft, named, str(entry["path"]), _files_of(draft, entry))


def _axolotl_named(draft: Draft, where: str, entry: Mapping[str, Any]) -> Named | None:
    named = Named(f"{where}.path", split=str(entry.get("split") or "train"), revision=entry.get("revision"))
    kind = entry.get("type", "")
    told = _type(named, kind, entry)
    if told is None:
        draft.lacks(f"{where}.type", "a form of rows that is not read: alpaca, sharegpt, chat_template, completion are")
        for other in entry:
            if other != "type":
                draft.lacks(f"{where}.{other}", "its type is not read")
        return None
    draft.told(f"{where}.type", "mapped", told)
    for other, inner in entry.items():
        if other not in ("path", "type"):
            _entry_key(draft, f"{where}.{other}", other, inner)
    return named


def _type(named: Named, kind: Any, entry: Mapping[str, Any]) -> str | None:
    """Set the form of the rows; the words for it, or null where it is not read."""
    if isinstance(kind, dict):
        return _own_type(named, kind)
    base = str(kind).partition(":")[0]
    if base == "alpaca":
        named.shape = "alpaca"
        return "source.shape: alpaca; its preamble (`Below is an instruction`) is left to the tokenizer's template"
    if base in ("sharegpt", "sharegpt.load_role"):
        named.shape = "sharegpt"
        return "source.shape: sharegpt"
    if base in ("chat_template", "chat_template.default", "chat_template.argilla"):
        return _messages(named, entry)
    if base == "completion":
        named.form, named.columns = "completion", {"body": str(entry.get("field") or "text")}
        named.prompt = _NO_PROMPT
        return f"train.format: completion; {_WHOLE_TEXT}"
    if base in _COLUMNED:
        question, answer = _COLUMNED[base]
        named.columns = {"body": question, "reply": answer}
        return f"source.columns: body is {question}, reply is {answer}"
    return None


def _messages(named: Named, entry: Mapping[str, Any]) -> str | None:
    column = str(entry.get("field_messages") or "messages")
    properties = entry.get("message_property_mappings") or {}
    role = str(properties.get("role") or entry.get("message_field_role") or "role")
    content = str(properties.get("content") or entry.get("message_field_content") or "content")
    if role not in _ROLE_KEYS or content not in _CONTENT_KEYS:
        return None
    return _conversation(named, column, sharegpt=", which reads role and content as well as from and value")


def _conversation(named: Named, column: str, *, sharegpt: str = "") -> str:
    """A conversation lies in this column; what is said of it, with a remark where ShareGPT's names make it that."""
    if column in ("conversations", "conversation"):
        named.shape = "sharegpt"
        return f"source.shape: sharegpt{sharegpt}"
    named.shape = "messages"
    if column != "messages":
        named.columns = {"messages": column}
    return "source.shape: messages"


def _own_type(named: Named, kind: Mapping[str, Any]) -> str | None:
    question, answer = kind.get("field_instruction"), kind.get("field_output")
    if not isinstance(question, str) or not isinstance(answer, str) or kind.get("field_input"):
        return None
    named.columns = {"body": question, "reply": answer}
    if isinstance(kind.get("system_prompt"), str) and "{" not in kind["system_prompt"]:
        named.prompt = {"system": kind["system_prompt"]}
    return f"source.columns: body is {question}, reply is {answer}; `format` is left to the tokenizer's template"


def _entry_key(draft: Draft, where: str, key: str, value: Any) -> None:
    simple = {
        "split": "source.split, of a dataset of the hub", "data_files": "source.paths",
        "field": "source.columns", "field_messages": "source.shape and source.columns",
        "message_property_mappings": "source.shape; role or from, content or value",
        "message_field_role": "source.shape; role or from", "message_field_content": "source.shape; content or value",
        "revision": "source.revision",
    }  # fmt: skip
    if key in simple:
        draft.told(where, "mapped", simple[key])
    elif key == "ds_type":
        draft.not_needed(where, "told by the file's suffix")
    elif key in ("train_on_eos", "chat_template", "shuffle", "preprocess_shards"):
        draft.not_needed(where, "the tokenizer's own template, with its end of turn, is the one that is used")
    elif key == "roles_to_train" and value in (["assistant"], ["gpt"], ["assistant", "gpt"], ["gpt", "assistant"]):
        draft.not_needed(where, "the assistant's tokens alone carry loss anyway")
    elif key == "roles":
        draft.not_needed(where, "user, human, customer, assistant, gpt, model and agent are known by themselves")
    elif key == "name":
        draft.lacks(where, "one configuration of a dataset is not chosen: save it as files, or as a directory")
    else:
        draft.lacks(where, "not read; a step of curate.steps can do it to the rows")


def _files_of(draft: Draft, entry: Mapping[str, Any]) -> list[str]:
    """Local files of an entry; none where it is a dataset of the hub."""
    path = str(entry["path"])
    listed = entry.get("data_files") or []
    listed = [listed] if isinstance(listed, str) else list(listed)
    candidates = [path, *map(str, listed), *(f"{path}/{name}" for name in listed)]
    return [found for name in candidates if (found := _local(draft, name))]


def _local(draft: Draft, name: str) -> str | None:
    """The file as pipelines.yaml names it; null where there is none."""
    for folder in (draft.folder, draft.root, Path.cwd()):
        path = (folder / name).absolute()
        if path.is_file():
            return path.relative_to(draft.root).as_posix() if path.is_relative_to(draft.root) else path.as_posix()
    return None


def llamafactory_datasets(draft: Draft, key: str, value: Any) -> None:
    """`dataset`: each name as `dataset_info.json` declares it, every key of its entry with a fate."""
    folder = str(draft.asked.get("dataset_dir") or "data")
    places = [base / folder / "dataset_info.json" for base in (draft.folder, draft.root, Path.cwd())]
    places += [draft.folder / "dataset_info.json"]
    path = next((place for place in places if place.is_file()), None)
    try:
        declared = {} if path is None else orjson.loads(path.read_bytes())
        asked = names(value)
    except (orjson.JSONDecodeError, TypeError):
        draft.lacks(key, "neither a list of names nor a dataset_info.json that can be read")
        return
    for name in asked:
        entry = declared.get(name)
        if isinstance(entry, dict) and path is not None:
            llamafactory_entry(draft, f"{key}.{name}", entry, path.parent)
        else:
            draft.lacks(
                f"{key}.{name}", f"no dataset_info.json in {folder} says what it is; name it under source.paths"
            )


def llamafactory_entry(draft: Draft, where: str, entry: Mapping[str, Any], folder: Path) -> None:
    """One entry of `dataset_info.json`."""
    if entry.get("ranking"):
        draft.lacks(where, PREFERENCES)
        return
    columns = entry.get("columns") or {}
    if strange := sorted(set(columns) & {"images", "videos", "audios", "kto_tag", "chosen", "rejected"}):
        draft.lacks(where, f"it has {', '.join(strange)}; texts of question and answer alone are trained on")
        return
    named = Named(where, split=str(entry.get("split") or "train"))
    told = _sharegpt(named, entry) if entry.get("formatting") == "sharegpt" else _alpaca(named, columns)
    if told is None:
        draft.lacks(where, "its columns or tags are not read; rename them, or map them under source.columns")
        return
    for key in ("subset", "folder", "script_url", "num_samples"):
        if entry.get(key):
            draft.lacks(f"{where}.{key}", "a part of a dataset is not chosen: save it as a file of its own")
    if "tools" in columns:
        draft.lacks(f"{where}.columns.tools", "calls of tools are quarantined (TG0307), all other rows are read")
    file = entry.get("file_name")
    found = _local(draft, str(folder / file)) if isinstance(file, str) else None
    if found is None and isinstance(file, str):
        draft.lacks(where, f"{file} is not in {folder.name}; name it under source.paths")
        return
    hub = entry.get("hf_hub_url")
    if found is None and not isinstance(hub, str):
        draft.lacks(where, "neither a file nor a dataset of the Hugging Face hub")
        return
    _take(draft, named, str(hub or file), [found] if found else [], told=told)


def _sharegpt(named: Named, entry: Mapping[str, Any]) -> str | None:
    tags = entry.get("tags") or {}
    column = str((entry.get("columns") or {}).get("messages") or "conversations")
    if tags.get("role_tag", "from") not in _ROLE_KEYS or tags.get("content_tag", "value") not in _CONTENT_KEYS:
        return None
    return _conversation(named, column)


def _alpaca(named: Named, columns: Mapping[str, Any]) -> str | None:
    question = str(columns.get("prompt") or "instruction")
    extra = columns.get("query") or (None if columns else "input")
    answer = str(columns.get("response") or "output")
    if (question, answer) == ("instruction", "output") and extra in (None, "input"):
        named.shape = "alpaca"
        return "source.shape: alpaca"
    if columns.get("query") or columns.get("history"):
        return None
    if not columns.get("response"):
        named.form, named.columns = "completion", {"body": question}
        named.prompt = _NO_PROMPT
        return f"train.format: completion; {_WHOLE_TEXT}"
    named.columns = {"body": question, "reply": answer}
    return f"source.columns: body is {question}, reply is {answer}"


def _take(draft: Draft, named: Named, path: str, files: list[str], *, told: str = "") -> None:
    """Make it the source, or more files of a source that is read the same way."""
    told = f"; {told}" if told else ""
    form = {"shape": named.shape, "columns": named.columns}
    before = draft.settings.get("source")
    if before is not None:
        same = before["kind"] == "files" and {key: before.get(key) for key in form} == form
        if files and same and draft.settings.get("train.format", "instruction") == named.form:
            before["paths"] += [file for file in files if file not in before["paths"]]
            draft.told(named.key, "mapped", f"source.paths{told}")
        else:
            draft.lacks(named.key, "a pipeline reads one source in one form; join them to files of one form")
        return
    if files:
        draft.settings["source"] = {"kind": "files", "paths": files, **form}
        draft.told(named.key, "mapped", f"source.paths{told}")
    elif COMMIT.fullmatch(str(named.revision or "")):
        draft.settings["source"] = {
            "kind": "hf", "path": path, "revision": named.revision, "split": named.split, **form,
        }  # fmt: skip
        draft.told(named.key, "mapped", f"source.path; allow_download: true for the first run{told}")
    else:
        draft.settings["source"] = {"kind": "hf", "path": path, "split": named.split, **form}
        draft.told(
            named.key, "mapped", f"source.path; a run asks for source.revision (a commit) and allow_download{told}"
        )
    for name, value in named.prompt.items():
        draft.settings[f"train.prompt.{name}"] = value
    if named.form == "completion":
        draft.settings["train.format"] = "completion"
