"""The reference of pipelines.yaml, written from the specs: every key with values, unit, default, meaning and example.

Knows pydantic's JSON Schema of `PipelineSpec`. An example is what pipelines.yaml or a page of docs/ writes there;
where none does, `examples.py` finds one. Called by `hooks.py` when the site is built.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from markdown.extensions.toc import slugify

from infra.site.examples import example_of, written_values
from infra.site.units import unit_of
from schemas.pipeline import PipelineSpec
from schemas.spec import Spec

PROJECT = Path(__file__).resolve().parents[2]
_HEAD = """\
# Every key of pipelines.yaml

Written from the specs in `schemas/` when the site is built. How the file is read, merged and checked is in
[configuration](configuration.md). `required` stands where a key has no default; null is written `null`. A section that
is not declared has the defaults of its keys, unless its own default is `null`: then it is off.
"""
_LIMITS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
_TABLE = "| key | values | unit | default | meaning | example |\n|---|---|---|---|---|---|\n"


@dataclass(frozen=True)
class Section:
    """One spec at the first place where pipelines.yaml may have it; `tag` chooses it among variants."""

    path: str
    spec: type[Spec]
    tag: str

    @property
    def title(self) -> str:
        """As its heading says."""
        return f"{self.path or 'A pipeline'}{f' ({self.tag})' if self.tag else ''}"

    def at(self, key: str) -> str:
        """Path of one of its keys."""
        return f"{self.path}.{key}".lstrip(".")


def reference_page(project: Path = PROJECT) -> str:
    """The page in Markdown."""
    schema = PipelineSpec.model_json_schema(by_alias=True)
    written = written_values(project)
    links = {each.spec.__name__: f"[{each.tag or each.path}](#{slugify(each.title, '-')})" for each in sections()}
    return "\n".join([_HEAD, *(_section(section, schema, links, written) for section in sections())])


def sections() -> list[Section]:
    """Every spec of a pipeline, each once, in the order of the file."""
    found: dict[type[Spec], Section] = {}
    for section in _below(Section("", PipelineSpec, "")):
        found.setdefault(section.spec, section)
    return list(found.values())


def keys_of(spec: type[Spec]) -> dict[str, str]:
    """Key in pipelines.yaml -> name of the field."""
    return {field.alias or name: name for name, field in spec.model_fields.items()}


def _below(section: Section) -> Iterator[Section]:
    yield section
    for key, name in keys_of(section.spec).items():
        for spec, listed in _specs(section.spec.model_fields[name].annotation, False):
            yield from _below(Section(f"{section.at(key)}{'[]' if listed else ''}", spec, _tag(spec)))


def _tag(spec: type[Spec]) -> str:
    """The key that chooses this spec among variants, with its value; empty where there are none."""
    fields = {key: spec.model_fields[key] for key in ("uses", "kind") if key in spec.model_fields}
    return next((f"{key}: {get_args(field.annotation)[0]}" for key, field in fields.items()), "")


def _specs(annotation: Any, listed: bool) -> Iterator[tuple[type[Spec], bool]]:
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        yield annotation, listed
    for inner in get_args(annotation):
        yield from _specs(inner, listed or get_origin(annotation) is tuple)


def _section(section: Section, schema: dict[str, Any], links: dict[str, str], written: dict[str, list[Any]]) -> str:
    own = schema if section.spec is PipelineSpec else schema["$defs"][section.spec.__name__]
    rows = []
    for key, name in keys_of(section.spec).items():
        told = own["properties"][key]
        kinds = [(each.get("type", ""), *_span(each)) for each in _forms(told)]
        example = example_of(section.spec, name, section.at(key), written, told)
        cells = (
            f"`{key}`",
            " or ".join(dict.fromkeys(_values(each, links) for each in _forms(told))),
            unit_of(key, kinds),
            _default(own, key, told),
            _meaning(key, told, section.spec, schema),
            "its keys" if example is None else f"`{key}: {json.dumps(example, ensure_ascii=False)}`",
        )
        rows.append("| " + " | ".join(cells) + " |")
    return f"## {section.title}\n\n{_plain(own.get('description', ''))}\n\n{_TABLE}" + "\n".join(rows) + "\n"


def _forms(told: dict[str, Any]) -> list[dict[str, Any]]:
    """What a value may be, one by one."""
    if "$ref" not in told and (choices := told.get("anyOf") or told.get("oneOf")):
        return [form for each in choices for form in _forms(each)]
    return [told]


def _values(form: dict[str, Any], links: dict[str, str]) -> str:
    if "$ref" in form:
        return links[form["$ref"].rpartition("/")[2]]
    if "const" in form or "enum" in form:
        return ", ".join(f"`{each}`" for each in form.get("enum", [form.get("const")]))
    kind = form.get("type", "")
    if kind == "array":
        inner = " or ".join(dict.fromkeys(_values(each, links) for each in _forms(form.get("items", {}))))
        return f"list of {inner or 'values'}" + (", not empty" if form.get("minItems") else "")
    if kind == "object":
        return "mapping" + (", not empty" if form.get("minProperties") else "")
    if kind == "string":
        return f"text matching `{form['pattern']}`" if "pattern" in form else "text"
    if kind in ("integer", "number"):
        limits = [f"{words} {form[limit]:,}" for limit, words in _LIMITS.items() if limit in form]
        return " ".join([{"integer": "whole number", "number": "number"}[kind], *limits])
    return {"boolean": "`true`, `false`", "null": "`null`"}.get(kind, "any value")


def _span(form: dict[str, Any]) -> tuple[float | None, float | None]:
    return form.get("minimum", form.get("exclusiveMinimum")), form.get("maximum", form.get("exclusiveMaximum"))


def _default(own: dict[str, Any], key: str, told: dict[str, Any]) -> str:
    if key in own.get("required", []):
        return "required"
    default = told.get("default")
    if isinstance(default, dict) and default:
        return "as its keys say"
    return f"`{json.dumps(default, ensure_ascii=False)}`"


def _meaning(key: str, told: dict[str, Any], spec: type[Spec], schema: dict[str, Any]) -> str:
    """The field's own words; of a section the first sentence of its spec; of the key that chooses, what it chooses."""
    if "description" in told:
        return _plain(told["description"])
    refs = [form["$ref"].rpartition("/")[2] for form in _forms(told) if "$ref" in form]
    if refs:
        text = (
            schema["$defs"][refs[0]].get("description", "")
            if len(refs) == 1
            else f"One of {len(refs)} kinds; each has keys of its own."
        )
        told_of = _plain(text).partition(": ")[2] if text.startswith("`") else _plain(text)
        return told_of[:1].upper() + told_of[1:]
    return (
        f"Chooses this kind: {_plain(schema['$defs'][spec.__name__]['description'])}" if key in ("uses", "kind") else ""
    )


def _plain(text: str) -> str:
    """One line that a table can hold."""
    parts = " ".join(text.split()).split("`")
    return "`".join(
        part if place % 2 else part.replace("|", "&#124;").replace("<", "&lt;") for place, part in enumerate(parts)
    )
