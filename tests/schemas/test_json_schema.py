"""The JSON Schema for editors fits the file as it is written."""

from functools import cache
from pathlib import Path

import jsonschema
import pytest

from schemas.json_schema import json_schema, json_schema_text


def test_the_committed_schema_is_the_one_of_the_specs(project: Path) -> None:
    committed = (project / "schemas" / "pipelines.schema.json").read_text(encoding="utf-8")
    assert committed == json_schema_text(), "run: tunegate ops schema > schemas/pipelines.schema.json"


@cache
def validator() -> jsonschema.Draft7Validator:
    return jsonschema.Draft7Validator(json_schema())


def errors(pipeline: object, **top: object) -> list[str]:
    data = {"version": 1, "pipelines": {"demo": pipeline}, **top}
    return [error.message for error in validator().iter_errors(data)]


@pytest.mark.parametrize(
    "pipeline",
    [
        {},
        {"extends": "base", "source": {"n_tickets": 60}},
        {"source": {"kind": "files", "paths": ["a.csv"], "columns": {"body": "text"}}},
        {"train": {"epochs": "${env:EPOCHS:-1}", "method": "${env:METHOD}", "allow_download": "${env:NET}"}},
        {"train": {"epochs": None, "adapter": None}, "schedule": None, "curate": {"steps": None}},
        {"train": {"adapter": {"target_modules": ["q_proj"]}}},
        {"source": {"kind": "${env:KIND}", "anything": 1}},
        {"gates": {"rules": [{"metric": "exact", "change_threshold": {"mode": "refresh", "margin": 0.1}}]}},
    ],
)
def test_parts_nulls_and_references_are_accepted(pipeline: object) -> None:
    assert errors(pipeline) == []
    assert errors({}, defaults=pipeline if "extends" not in str(pipeline) else {}) == []


@pytest.mark.parametrize(
    "pipeline",
    [
        {"trian": {}},
        {"name": "x"},
        {"table": {}},
        {"source": {"kind": "files", "n_tickets": 5}},
        {"source": {"n_tickts": 5}},
        {"source": {"kind": "genrated"}},
        {"train": {"epochs": "three"}},
        {"train": {"epochs": 0}},
        {"train": {"method": "lroa"}},
        {"train": {"base_model": 5}},
        {"curate": {"steps": [{"uses": "dedup", "treshold": 0.5}]}},
        {"curate": {"steps": {"uses": "dedup"}}},
        {"schema": {"required": ["bdy"]}},
        5,
    ],
)
def test_wrong_keys_and_values_are_refused(pipeline: object) -> None:
    assert errors(pipeline)


def test_names_anchors_and_the_top_are_checked_too() -> None:
    assert errors({}, **{"x-anything": {"a": 1}}) == []
    assert errors({}, default={})
    assert errors({}, version=2)
    assert errors({}, defaults={"extends": "demo"})
    assert errors({}, pipelines={"Demo": {}})


def test_editors_can_explain_keys() -> None:
    train = json_schema()["$defs"]["TrainSection"]["properties"]
    assert train["max_length"]["description"] == "Tokens of prompt and answer together."
    assert train["max_length"]["default"] == 1024
