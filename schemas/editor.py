"""A JSON Schema of `pipelines.yaml` as it is written, so that editors complete, explain and check it.

Looser than the specs, which describe a pipeline after merging: a section under `extends` or `defaults` names only what
it changes, null deletes, and `${env:NAME}` may stand for any plain value. What a schema cannot say (does the metric of
a gate exist?) stays with `schemas/load.py`. Called by `flows/cli.py` and by the test that compares
`schemas/pipelines.schema.json`, which is committed so that an editor needs no installation.
"""

from __future__ import annotations

import json
from typing import Any

from schemas.merge import VERSION
from schemas.pipeline import PipelineSpec

Schema = dict[str, Any]

_REFERENCE: Schema = {"$ref": "#/$defs/Reference"}
_REFERENCE_FORM: Schema = {
    "type": "string",
    "pattern": r"\$\{env:[A-Za-z_][A-Za-z0-9_]*(:-[^{}]*)?\}",
    "description": "A value from the environment: `${env:NAME}` or `${env:NAME:-default}`.",
}
_NULL: Schema = {"type": "null"}


def editor_schema() -> Schema:
    """The schema, draft 7, as plain JSON data; equal specs give equal data."""
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


def editor_schema_text() -> str:
    """The schema as the bytes of `schemas/pipelines.schema.json`."""
    return json.dumps(editor_schema(), indent=2, ensure_ascii=False) + "\n"


def _section(schema: Schema) -> Schema:
    """A section of which any part may be left to the parent."""
    properties = {key: _value(each, nullable=True) for key, each in schema["properties"].items()}
    return {"type": "object", **_texts(schema), "properties": properties, "additionalProperties": False}


def _value(schema: Schema, *, nullable: bool) -> Schema:
    """A value: itself, a reference where a plain value belongs, null where a key may be deleted."""
    if "discriminator" in schema:
        choices: list[Schema] = [_variants(schema)]
    elif "$ref" in schema:
        choices = [{"$ref": schema["$ref"]}]
    elif "anyOf" in schema:
        choices = [choice for each in schema["anyOf"] for choice in _choices(_value(each, nullable=False))]
    elif schema.get("type") == "array":
        choices = [{**_limits(schema), "items": _value(schema["items"], nullable=False)}]
    elif schema["type"] in ("integer", "number", "boolean") or schema.keys() & {"pattern", "enum", "const"}:
        choices = [_limits(schema), _REFERENCE]
    else:
        choices = [_limits(schema)]
    if nullable and _NULL not in choices:
        choices.append(_NULL)
    unique = [choice for index, choice in enumerate(choices) if choice not in choices[:index]]
    return {**_texts(schema), **(unique[0] if len(unique) == 1 else {"anyOf": unique})}


def _variants(schema: Schema) -> Schema:
    """A section with variants: the key that chooses, then the chosen one's keys.

    Conditions instead of a plain choice, so that an editor tells the wrong key and not that no variant fits. Without
    the choosing key (the parent has it) the keys of all variants are allowed.
    """
    key = schema["discriminator"]["propertyName"]
    mapping = schema["discriminator"]["mapping"]
    return {
        "type": "object",
        "properties": {key: {"anyOf": [{"enum": list(mapping)}, _REFERENCE]}},
        "allOf": [
            {"if": {"properties": {key: {"const": tag}}, "required": [key]}, "then": {"$ref": ref}}
            for tag, ref in mapping.items()
        ],
        "if": {"not": {"required": [key]}},
        "then": {"anyOf": [{"$ref": ref} for ref in mapping.values()]},
    }


def _choices(schema: Schema) -> list[Schema]:
    choices = schema.get("anyOf")
    return choices if isinstance(choices, list) else [schema]


def _limits(schema: Schema) -> Schema:
    """What a value must meet, without titles and texts."""
    return {key: each for key, each in schema.items() if key not in ("title", "description", "default")}


def _texts(schema: Schema) -> Schema:
    """What an editor shows. A section as default is left out: its own keys show theirs."""
    texts = {"description": " ".join(schema["description"].split())} if "description" in schema else {}
    default = schema.get("default")
    return texts if default is None or isinstance(default, dict) else {**texts, "default": default}
