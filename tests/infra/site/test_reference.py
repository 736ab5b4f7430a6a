"""The reference page of all keys of pipelines.yaml."""

import re

import pytest

from infra.site.reference import UNITS, reference_page, unit_of
from schemas.pipeline import PipelineSpec


def test_the_page_lists_every_key_of_every_section_with_values_default_and_meaning() -> None:
    schema = PipelineSpec.model_json_schema(by_alias=True)
    specs = [schema, *(spec for spec in schema["$defs"].values() if "properties" in spec)]
    parts = re.findall(r"^## .+?\n(.*?)(?=^## |\Z)", reference_page(), re.M | re.S)
    assert len(parts) == len(specs) > 50
    shown = sorted(tuple(re.findall(r"^\| `([^`]+)` \| ", part, re.M)) for part in parts)
    assert shown == sorted(tuple(spec["properties"]) for spec in specs)
    for row in re.findall(r"^\| `.*", "\n".join(parts), re.M):
        key, values, _, default, meaning = row.removeprefix("| ").removesuffix(" |").split(" | ")
        assert values, row
        assert default, row
        assert len(meaning) > 3, f"{key} has no docstring in schemas/"


def test_the_page_shows_limits_kinds_and_required_keys() -> None:
    page = reference_page()
    assert "| `paths` | list of text |  | required |" in page
    assert "| whole number at least 1 at most 1,024 | - | `16` |" in page
    assert "## source (kind: duckdb)" in page
    assert "[source (kind: duckdb)](#source-kind-duckdb)" in page


def test_every_number_has_a_unit_and_every_unit_a_key() -> None:
    schema = PipelineSpec.model_json_schema(by_alias=True)
    specs = {"PipelineSpec": schema, **schema["$defs"]}
    keys = {(name, key): value for name, spec in specs.items() for key, value in spec.get("properties", {}).items()}
    units = {place: unit_of(*place, value) for place, value in keys.items()}
    assert units["FreshnessCheck", "max_age_hours"] == "hours"
    assert units["SplitSpec", "test_fraction"] == "0-1"
    assert units["RemoteFilesSource", "max_total_mb"] == "MiB"
    assert units["FilesSource", "paths"] == ""
    with pytest.raises(KeyError, match=r"NewSpec\.speed"):
        unit_of("NewSpec", "speed", {"type": "number", "minimum": 0})
    numbers = {name for place, unit in units.items() if unit for name in (".".join(place), place[1])}
    assert set(UNITS) - numbers == set(), "units of keys that do not exist or are no numbers"


def test_a_code_span_with_a_bar_does_not_break_a_table() -> None:
    page = reference_page()
    assert "(hourly&#124;daily&#124;" in page
