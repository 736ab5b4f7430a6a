"""A JSON Schema of `pipelines.yaml` as written, so that editors complete, explain and check it.

Looser than the specs, which describe a pipeline after merging: a section with `extends` or under `defaults` has only
what it changes, null deletes, and `${env:NAME}` may replace any plain value. What a schema cannot express (whether the
metric of a gate exists) only `schemas/load.py` checks. A test compares `schemas/pipelines.schema.json`, which is
committed so that an editor needs no installation.
"""

import json
from typing import Any

from schemas.merge import VERSION
from schemas.pipeline import PipelineSpec
from schemas.registries import load_registries

Schema = dict[str, Any]

_REFERENCE: Schema = {"$ref": "#/$defs/Reference"}
_REFERENCE_FORM: Schema = {
    "type": "string",
    "pattern": r"\$\{env:[A-Za-z_][A-Za-z0-9_]*(:-[^{}]*)?\}",
    "description": "A value from the environment: `${env:NAME}` or `${env:NAME:-default}`.",
}
_NULL: Schema = {"type": "null"}


def json_schema() -> Schema:
    """The schema, draft 7, as plain JSON data; equal specs give equal data."""
    load_registries()
    strict = PipelineSpec.model_json_schema(by_alias=True)
    definitions: Schema = {name: _section(each) for name, each in strict["$defs"].items()}
    pipeline = _section({key: value for key, value in strict.items() if key != "$defs"})
    name = strict["properties"]["name"]["pattern"]
    del pipeline["properties"]["name"]
    definitions["Reference"] = _REFERENCE_FORM
    definitions["Defaults"] = {**pipeline, "description": "Merged under every pipeline."}
    definitions["Pipeline"] = {
        **pipeline,
        "properties": {
            "extends": {"type": "string", "description": "Pipeline whose settings this one starts from."},
            **pipeline["properties"],
        },
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "tunegate pipelines",
        "type": "object",
        "required": ["version", "pipelines"],
        "properties": {
            "version": {"const": VERSION, "description": "Form of this file."},
            "defaults": {"$ref": "#/$defs/Defaults"},
            "pipelines": {
                "type": "object",
                "description": "Name -> pipeline.",
                "minProperties": 1,
                "patternProperties": {name: {"$ref": "#/$defs/Pipeline"}},
                "additionalProperties": False,
            },
        },
        "patternProperties": {"^x-": {"description": "Ignored; a place for anchors."}},
        "additionalProperties": False,
        "$defs": dict(sorted(definitions.items())),
    }


def json_schema_text() -> str:
    """The schema as the bytes of `schemas/pipelines.schema.json`."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def _section(schema: Schema) -> Schema:
    """A section; its parent may have any part of it."""
    properties = {key: _value(each) for key, each in schema["properties"].items()}
    return {"type": ["object", "null"], **_texts(schema), "properties": properties, "additionalProperties": False}


def _value(schema: Schema) -> Schema:
    """A value: itself, a reference if it is a plain value, or null, which deletes."""
    choices = _choices(schema)
    if len(choices) == 1 and isinstance(choices[0].get("type"), str):
        choices[0]["type"] = [choices[0]["type"], "null"]
    elif any(each == _REFERENCE for each in choices):
        choices.append(_NULL)
    return {**_texts(schema), **(choices[0] if len(choices) == 1 else {"anyOf": choices})}


def _variants(schema: Schema) -> Schema:
    """A section with variants: the key that selects one, then the keys of the selected one.

    Conditions instead of a plain choice, so that an editor reports the wrong key and not that no variant matches.
    Without the selecting key (the parent has it) the keys of all variants are allowed.
    """
    key = schema["discriminator"]["propertyName"]
    mapping = schema["discriminator"]["mapping"]
    return {
        "type": ["object", "null"],
        "properties": {key: {"anyOf": [{"enum": list(mapping)}, _REFERENCE]}},
        "allOf": [
            {"if": {"type": "object", "properties": {key: {"const": tag}}, "required": [key]}, "then": {"$ref": ref}}
            for tag, ref in mapping.items()
        ],
        "if": {"type": "object", "not": {"required": [key]}},
        "then": {"anyOf": [{"$ref": ref} for ref in mapping.values()]},
    }


def _choices(schema: Schema) -> list[Schema]:
    """The allowed forms of a value. Sections already allow null."""
    if "discriminator" in schema:
        return [_variants(schema)]
    if "$ref" in schema:
        return [{"$ref": schema["$ref"]}]
    if "anyOf" in schema:
        found = [choice for each in schema["anyOf"] if each != _NULL for choice in _choices(each)]
        return [choice for index, choice in enumerate(found) if choice not in found[:index]]
    if schema["type"] == "array":
        (item, *others) = _choices(schema["items"])
        return [{**_limits(schema), "items": {"anyOf": [item, *others]} if others else item}]
    if schema["type"] in ("integer", "number", "boolean") or schema.keys() & {"pattern", "enum", "const"}:
        return [_limits(schema), _REFERENCE]
    return [_limits(schema)]


def _limits(schema: Schema) -> Schema:
    """The constraints of a value, without titles and texts."""
    return {key: each for key, each in schema.items() if key not in ("title", "description", "default")}


def _texts(schema: Schema) -> Schema:
    """What an editor shows. A section as default is left out: its keys have their own."""
    texts = {"description": " ".join(schema["description"].split())} if "description" in schema else {}
    default = schema.get("default")
    return texts if default is None or isinstance(default, dict) else {**texts, "default": default}
