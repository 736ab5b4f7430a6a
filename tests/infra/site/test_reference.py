"""The reference page of all keys of pipelines.yaml."""

import re

from infra.site.reference import reference_page
from schemas.pipeline import PipelineSpec


def test_the_page_lists_every_key_of_every_section_with_values_default_and_meaning() -> None:
    schema = PipelineSpec.model_json_schema(by_alias=True)
    specs = [schema, *(spec for spec in schema["$defs"].values() if "properties" in spec)]
    parts = re.findall(r"^## .+?\n(.*?)(?=^## |\Z)", reference_page(), re.M | re.S)
    assert len(parts) == len(specs) > 50
    shown = sorted(tuple(re.findall(r"^\| `([^`]+)` \| ", part, re.M)) for part in parts)
    assert shown == sorted(tuple(spec["properties"]) for spec in specs)
    for row in re.findall(r"^\| `.*", "\n".join(parts), re.M):
        key, values, default, meaning = row.removeprefix("| ").removesuffix(" |").split(" | ")
        assert values, row
        assert default, row
        assert len(meaning) > 3, f"{key} has no docstring in schemas/"


def test_the_page_shows_limits_kinds_and_required_keys() -> None:
    page = reference_page()
    assert "| `paths` | list of text | required |" in page
    assert "| whole number at least 1 at most 1,024 | `16` |" in page
    assert "## source (kind: duckdb)" in page
    assert "[source (kind: duckdb)](#source-kind-duckdb)" in page
