"""Another trainer's YAML -> a pipeline, and what became of each of its keys.

Called by `flows/commands/init.py`. The tables of keys are in `tasks/start/axolotl.py` and
`tasks/start/llamafactory.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from schemas.choice import TrainSection
from schemas.diagnostics import read_source
from schemas.errors import ConfigError
from schemas.learning_rate import is_usual
from schemas.yaml_text import MAX_BYTES, MAX_LINE, plain, read_tree
from tasks.start import axolotl, llamafactory
from tasks.start.draft import Draft, Fate, apply
from tasks.start.foreign_sections import file_of
from tasks.start.propose import pipeline_name
from tasks.start.yaml_out import Section

SUFFIXES = (".yaml", ".yml")
_LEAST_MARKS = 2


@dataclass(frozen=True)
class Translation:
    """A translated file."""

    kind: str
    """axolotl or LLaMA-Factory."""
    name: str
    section: Section
    fates: tuple[Fate, ...]


def is_settings(path: Path) -> bool:
    """Is it a file of settings, by its suffix?"""
    return path.suffix.lower() in SUFFIXES


def translate(path: Path, *, name: str | None, root: Path) -> Translation:
    """Translate the file; every key ends in a fate.

    Raises:
        ConfigError: TG0166, it is nobody's that is known; TG0107 to TG0110, it is no YAML that can be read.
    """
    tree: dict[str, Any] = plain(read_tree(read_source(path, max_bytes=MAX_BYTES, max_line=MAX_LINE)))
    kind = _kind(tree, path)
    draft = Draft(folder=path.absolute().parent, root=root, asked=tree)
    if kind == "axolotl":
        apply(draft, axolotl.RULES, axolotl.RULE_FAMILIES)
        axolotl.method_without_key(draft)
    else:
        apply(draft, llamafactory.RULES, llamafactory.RULE_FAMILIES)
        llamafactory.alpha_without_key(draft)
    _keep_what_fits(draft)
    chosen = name or pipeline_name(path)
    return Translation(kind, chosen, file_of(draft, kind=kind, name=chosen), tuple(draft.fates))


def nested(settings: Mapping[str, Any], under: str) -> dict[str, Any]:
    """`{"train.adapter.rank": 8}` below `train` as `{"adapter": {"rank": 8}}`."""
    found: dict[str, Any] = {}
    for path, value in settings.items():
        section, *keys = path.split(".")
        if section != under or not keys:
            continue
        inner = found
        for key in keys[:-1]:
            inner = inner.setdefault(key, {})
        inner[keys[-1]] = value
    return found


def _kind(tree: Mapping[str, Any], path: Path) -> str:
    if len(llamafactory.MARKS & tree.keys()) >= _LEAST_MARKS:
        return "LLaMA-Factory"
    if len(axolotl.MARKS & tree.keys()) >= _LEAST_MARKS:
        return "axolotl"
    what = "a pipelines.yaml already" if "pipelines" in tree else "neither axolotl's nor LLaMA-Factory's"
    raise ConfigError(
        f"the settings in {path.name} are {what}",
        code="TG0166",
        where=str(path),
        hint="give the YAML of a training (base_model, datasets ... or model_name_or_path, dataset ...), or a file of "
        "tickets: CSV, JSON lines, Parquet",
    )


def _keep_what_fits(draft: Draft) -> None:
    """Take back what the project's own model of `train` refuses, and say so of the key it came from."""
    for _ in range(len(draft.settings) + 1):
        rate = draft.settings.get("train.learning_rate")
        if rate is not None and not is_usual(str(draft.settings.get("train.method", "lora")), rate):
            draft.settings["train.allow_unusual_learning_rate"] = True
        try:
            TrainSection.model_validate({"base_model": "file:.", **nested(draft.settings, "train")})
        except ValidationError as error:
            if not _take_back(draft, error):
                raise
        else:
            return


def _take_back(draft: Draft, error: ValidationError) -> bool:
    for fault in error.errors():
        faults = getattr(fault.get("ctx", {}).get("error"), "faults", ())
        places = [fault["loc"], *(each.at for each in faults)]
        for place in places:
            if place and _drop(draft, "train." + ".".join(map(str, place)), str(fault["msg"])):
                return True
    return False


def _drop(draft: Draft, path: str, why: str) -> bool:
    hit = next((each for each in draft.origin if path == each or path.startswith(f"{each}.")), None)
    if hit is None:
        return False
    del draft.settings[hit]
    key = draft.origin.pop(hit)
    draft.fates = [each for each in draft.fates if each.key != key]
    draft.lacks(key, f"{why}: {hit}")
    return True
