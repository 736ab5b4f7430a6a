"""The section `schedule`: its parts are merged and refused like those of any other section."""

from collections.abc import Callable

import pytest

from schemas.load import PipelineFile
from schemas.schedule import ScheduleSpec, TriggerSpec

FILE = """\
version: 1
defaults:
  schedule: {timezone: Europe/Berlin, resource: gpu}
pipelines:
  base:
    source: {kind: files, paths: [tickets.csv]}
    train: {base_model: file:///models/tiny, method: lora}
    gates: {rules: [{metric: exact, value_threshold: 0.5}]}
    register: {name: base}
    schedule: {cron: "@daily", triggers: [{event: tickets.arrived}], retrain: {min_new: 200, drift: {window: 100}}}
"""


def test_parts_of_a_schedule_are_merged_over_those_of_defaults_and_parent(load: Callable[..., PipelineFile]) -> None:
    child = "  child: {extends: base, schedule: {cron: null, timezone: null, retrain: {drift: {min_new: 50}}}}\n"
    spec = load(FILE + child).get("child").schedule
    assert (spec.cron, spec.timezone, spec.resource) == (None, "UTC", "gpu")
    assert spec.triggers == (TriggerSpec(event="tickets.arrived"),)
    assert spec.retrain.drift is not None
    assert (spec.retrain.min_new, spec.retrain.drift.window, spec.retrain.drift.min_new) == (200, 100, 50)


def test_null_removes_all_that_starts_a_pipeline_or_only_one_part(load: Callable[..., PipelineFile]) -> None:
    pipelines = load(
        FILE + "  none: {extends: base, schedule: null}\n  one: {extends: base, schedule: {triggers: null}}\n"
    )
    assert pipelines.get("none").schedule == ScheduleSpec()
    assert (pipelines.get("one").schedule.cron, pipelines.get("one").schedule.triggers) == ("@daily", ())


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("{retrain: {min_new: few}}", ("`pipelines.child.schedule.retrain.min_new`", "whole number, got 'few'")),
        ("{triggers: [{event: x, quiet: 1}]}", ("`pipelines.child.schedule.triggers[0].quiet`", "quiet_minutes")),
        ("{retrain: {drift: {length: 2}}}", ("`pipelines.child.schedule.retrain.drift.length`", "or equal to 1")),
        ("{cron: null, timezone: Asia/Tokyo}", ("`pipelines.child.schedule.timezone`: timezone needs a cron",)),
        ("{catch_up: all}", ("`pipelines.child.schedule`: `catch_up: all` needs `overlap: queue`",)),
    ],
)  # fmt: skip
def test_a_fault_in_a_part_has_its_place(explain: Callable[..., str], schedule: str, expected: tuple[str, ...]) -> None:
    message = explain(f"{FILE}  child: {{extends: base, schedule: {schedule}}}\n")
    for part in expected:
        assert part in message
