"""Examples for the reference: what pipelines.yaml and the pages of docs/ write under a key, else one that fits.

Called by `reference.py`. Every example is accepted by its field; a test tries each.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from schemas.spec import Spec

FENCE = re.compile(r"^```yaml[^\n]*\n(.*?)^```", re.M | re.S)
_LONGEST = 72
_BY_TYPE: dict[str, Any] = {"integer": 2, "number": 0.5, "boolean": True}
_OTHERWISE: dict[str, Any] = {
    "name": "support-replies",
    "source.path": "exports/tickets",
    "table": "tickets",
    "query": "select * from tickets where closed",
    "columns": {"body": "description", "reply": "comments[-1].body"},
    "revision": "0123456789abcdef0123456789abcdef01234567",
    "file": "steps/clean.sql",
    "entry_point": "steps.clean:keep",
    "curate.steps[].types": ["email", "phone"],
    "max_perplexity": 400,
    "layers": "10-29",
    "over": {"adapter.rank": [8, 16]},
    "fields": r"\[(?P<category>[a-z-]+)\]",
    "api_key_env": "ENDPOINT_KEY",
    "select": "SELECT item_id, finished::INT AS value FROM predictions",
    "slice": "product=lamp",
    "same": ["customer_id"],
    "criteria": "The better reply answers the question that was asked.",
    "resource": "helpdesk",
    "prefect_block": "sendgrid-email/on-call",
    "triggers": [{"event": "tickets.arrived"}],
}
"""For keys that nothing writes and whose type says too little."""


def written_values(project: Path) -> dict[str, list[Any]]:
    """Path such as `gates.rules[].metric` -> the values written there, those of pipelines.yaml first."""
    found: dict[str, list[Any]] = defaultdict(list)
    for text in _texts(project):
        try:
            document = YAML(typ="safe", pure=True).load(text)
        except YAMLError:
            continue
        if isinstance(document, dict):
            pipelines = [document.get("defaults"), *document.get("pipelines", {}).values()]
            for each in pipelines if "pipelines" in document else [document]:
                _collect(each, "", found)
    return found


def example_of(spec: type[Spec], name: str, path: str, written: dict[str, list[Any]], told: dict[str, Any]) -> Any:
    """The first short way to write the key that its field takes; null where a section's own keys show it better."""
    key = path.rpartition(".")[2]
    for value in (*written.get(path, []), _OTHERWISE.get(path), _OTHERWISE.get(key), *_made_up(told)):
        if value is not None and len(repr(value)) <= _LONGEST and accepts(spec, name, value):
            return value
    return None


def accepts(spec: type[Spec], name: str, value: Any) -> bool:
    """Whether the field takes the value, by its type and its limits."""
    field = spec.model_fields[name]
    try:
        TypeAdapter(field.rebuild_annotation()).validate_python(value)
    except ValidationError:
        return False
    return True


def _made_up(told: dict[str, Any]) -> list[Any]:
    """Another than the default where there is one: it shows more."""
    default = told.get("default")
    made: list[Any] = []
    for form in [told, *told.get("anyOf", [])]:
        made += [each for each in form.get("enum", []) if each != default]
        made += [form["const"]] if "const" in form else []
        if form.get("type") in ("integer", "number") and default is None:
            made += [form.get("minimum"), form.get("maximum")]
        made += [_BY_TYPE[form["type"]]] if form.get("type") in _BY_TYPE and default is None else []
        made += [not default] if form.get("type") == "boolean" else []
    return [*made, default] if not isinstance(default, int | float) or isinstance(default, bool) else [default, *made]


def _texts(project: Path) -> list[str]:
    pages = sorted((project / "docs").glob("*.md"))
    blocks = [block for page in pages for block in FENCE.findall(page.read_text(encoding="utf-8"))]
    return [(project / "pipelines.yaml").read_text(encoding="utf-8"), *blocks]


def _collect(value: Any, path: str, found: dict[str, list[Any]]) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            at = f"{path}.{key}".lstrip(".")
            found[at].append(inner)
            _collect(inner, at, found)
    elif isinstance(value, list):
        for inner in value:
            _collect(inner, f"{path}[]", found)
