"""Generate the page with every key of pipelines.yaml, from pydantic's JSON Schema of a pipeline.

One table per section of the file: values, default and the docstring of the key, which editors show too. Called by
`hooks.py` when the site is built.
"""

import json
from collections.abc import Iterator
from typing import Any

from markdown.extensions.toc import slugify

from schemas.pipeline import PipelineSpec

HEAD = """\
# Every key of pipelines.yaml

Generated from the specs in `schemas/`; [configuration](configuration.md) explains how the file is read, merged and
checked. A section that is not declared has the defaults of its keys, unless its own default is `null`: then it is off.
"""
TABLE = "| key | values | default | meaning |\n|---|---|---|---|\n"
LIMITS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
Schema = dict[str, Any]


def reference_page() -> str:
    """Return the page as Markdown."""
    schema = PipelineSpec.model_json_schema(by_alias=True)
    specs = {"PipelineSpec": schema, **schema["$defs"]}
    titles: dict[str, str] = {}
    for name, title in _sections("PipelineSpec", "A pipeline", specs):
        titles.setdefault(name, title)
    return "\n".join([HEAD, *(_section(specs[name], title, titles, specs) for name, title in titles.items())])


def _sections(name: str, title: str, specs: dict[str, Schema]) -> Iterator[tuple[str, str]]:
    """Yield name and title of each spec in the order of the file, repeated if it is used in several places."""
    yield name, title
    path = "" if name == "PipelineSpec" else f"{title.partition(' (')[0]}."
    for key, value in specs[name].get("properties", {}).items():
        for form in _forms(value):
            inner, mark = _inside(form)
            for part in _forms(inner):
                if "$ref" in part:
                    below = _name(part)
                    yield from _sections(below, f"{path}{key}{mark}{_variant(specs[below])}", specs)


def _inside(form: Schema) -> tuple[Schema, str]:
    """Return the item of a list or a mapping, and its mark in a title; other forms unchanged."""
    if "items" in form:
        return form["items"], "[]"
    if isinstance(values := form.get("additionalProperties"), dict):
        return values, ".*"
    return form, ""


def _variant(spec: Schema) -> str:
    """Return the key that chooses this one of several forms of a section."""
    for key in ("uses", "kind"):
        if "const" in (value := spec.get("properties", {}).get(key, {})):
            return f" ({key}: {value['const']})"
    return ""


def _section(spec: Schema, title: str, titles: dict[str, str], specs: dict[str, Schema]) -> str:
    rows = []
    for key, value in spec.get("properties", {}).items():
        forms = " or ".join(dict.fromkeys(_values(form, titles) for form in _forms(value)))
        default = "required" if key in spec.get("required", []) else f"`{json.dumps(value.get('default'))}`"
        if isinstance(value.get("default"), dict) and value["default"]:
            default = "that of its keys"
        sections = [specs[_name(form)] for form in _forms(value) if "$ref" in form]
        of_section = sections[0].get("description", "") if len(sections) == 1 else f"One of {len(sections)} kinds."
        meaning = "Chooses this kind." if key in ("uses", "kind") else value.get("description", of_section)
        rows.append(f"| `{key}` | {forms} | {default} | {_line(meaning)} |")
    return f"## {title}\n\n{_line(spec.get('description', ''))}\n\n{TABLE}" + "\n".join(rows) + "\n"


def _forms(value: Schema) -> list[Schema]:
    """Return the alternatives for a value."""
    if "$ref" not in value and (choices := value.get("anyOf") or value.get("oneOf")):
        return [form for choice in choices for form in _forms(choice)]
    return [value]


def _name(form: Schema) -> str:
    return str(form["$ref"]).rpartition("/")[2]


def _values(form: Schema, titles: dict[str, str]) -> str:
    if "$ref" in form:
        title = titles[_name(form)]
        return f"[{title}](#{slugify(title, '-')})"
    if "const" in form or "enum" in form:
        return ", ".join(f"`{value}`" for value in form.get("enum", [form.get("const")]))
    kind = form.get("type", "any value")
    inner, mark = _inside(form)
    if mark:
        values = " or ".join(dict.fromkeys(_values(each, titles) for each in _forms(inner)))
        return f"{'list of' if mark == '[]' else 'mapping to'} {values}"
    if kind == "string" and "pattern" in form:
        return f"text matching `{form['pattern']}`"
    limits = [f"{words} {form[limit]:,}" for limit, words in LIMITS.items() if limit in form]
    words = {"object": "mapping", "string": "text", "integer": "whole number", "boolean": "`true`, `false`"}
    return " ".join([words.get(kind, kind), *limits])


def _line(text: str) -> str:
    """Make one line that fits in a table; code spans stay unchanged."""
    parts = " ".join(text.split()).split("`")
    parts[::2] = [part.replace("|", "&#124;").replace("<", "&lt;") for part in parts[::2]]
    return "`".join(parts)
