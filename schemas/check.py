"""Validate one merged pipeline: return it typed, or its faults, each at the place of its value in the file.

`explain.py` says in sentences what pydantic finds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from schemas.choice import TrainSection
from schemas.curation import CurateSpec, SplitSpec, TableSpec
from schemas.data_checks import DataCheck, repeated_checks
from schemas.diagnostics import SourceText, Span
from schemas.environment import Data, Substitution
from schemas.errors import TunegateError
from schemas.evaluation import EvaluateSpec
from schemas.explain import Explanation, FileFault, Key, find_entry, model_keys, place_of, span_of, spans
from schemas.gates import GatesSpec
from schemas.merge import MergedPipeline
from schemas.named_tables import NamedTable, table_conflicts
from schemas.pipeline import DataPipeline, PipelineSpec, pipeline_model
from schemas.pipeline_rules import METRIC_KEYS, section_faults
from schemas.source import SourceSpec
from schemas.spec import Spec
from schemas.yaml_text import Entry

SECTIONS: dict[str, type[Spec]] = {
    "train": TrainSection, "split": SplitSpec, "evaluate": EvaluateSpec, "gates": GatesSpec,
}  # fmt: skip
"""Sections that must fit together."""
_READ_OF_EVALUATE = {("evaluate", key) for key in (*METRIC_KEYS, "arms", "corpus", "max_items")}
"""What faults and advice beyond the file itself are about; its other keys may be wrong."""
_ABSENT = object()


@dataclass(frozen=True)
class ReadableSections:
    """The sections of a pipeline with faults that have none of their own; None for the others."""

    name: str
    source: SourceSpec | None = None
    table: TableSpec | None = None
    tables: dict[str, NamedTable] | None = None
    curate: CurateSpec | None = None
    checks: tuple[DataCheck, ...] | None = None
    train: TrainSection | None = None
    evaluate: EvaluateSpec | None = None
    gates: GatesSpec | None = None

    def written(self) -> list[object]:
        """The sections as plain data."""
        found = (getattr(self, each.name) for each in fields(self))
        return [each.model_dump() for each in found if isinstance(each, Spec)]


Declared = DataPipeline | ReadableSections
"""A valid pipeline, or what can be read of another."""


def sections_of(spec: Declared) -> PipelineSpec | ReadableSections:
    """Return the sections that can be read; those about a model are None in a pipeline of data alone."""
    if isinstance(spec, PipelineSpec | ReadableSections):
        return spec
    return ReadableSections(
        spec.name, source=spec.source, table=spec.table, tables=spec.tables, curate=spec.curate, checks=spec.checks
    )


@dataclass
class PipelineCheck:
    """Validates one pipeline; afterwards `findings` has its faults, and `readable` what can be used despite them."""

    pipeline: MergedPipeline
    source: SourceText
    use: Substitution
    address_fault: Callable[[str], TunegateError | None] | None = None
    """Returns what is wrong with the address of a base model; None checks none."""
    readable: ReadableSections | None = None
    """None if the pipeline is valid."""

    @property
    def findings(self) -> list[FileFault]:
        """The faults so far."""
        return self._report.findings

    @cached_property
    def _report(self) -> Explanation:
        keys = (*(key for key in model_keys(PipelineSpec) if key != "name"), "extends")
        return Explanation(PipelineSpec, self.pipeline.root, keys, self.source, self.use)

    def spec(self) -> DataPipeline | None:
        """The typed pipeline; None if it has faults."""
        data = {key: self.use.data(entry) for key, entry in self.pipeline.sections.items()}
        data["name"] = self.pipeline.name
        spec, errors = _validated(data)
        if [error for error in errors if self._deleted(data, error)]:
            spec, errors = _validated(data)
        self._report.explain(errors)
        self._check_addresses(data)
        confused = self._report.explain_confused(spec) if spec is not None else set()
        self.findings.extend(FileFault(fault) for fault in self.use.faults)
        if not self.findings:
            return spec
        wrong = self.use.failed | confused
        self.readable = self._readable_sections(data, wrong)
        sections, removed = dict[str, Spec | None](), set[tuple[Key, ...]]()
        for name, model in SECTIONS.items():
            lost = tuple(_paths(self.pipeline.sections[name], wrong)) if name in data else ()
            sections[name], gone = _without_faults(model, data.get(name, {}), lost)
            removed |= {(name, *path) for path in gone}
        if spec is None:
            self._explain_the_rest(sections, removed)
        evaluate = sections["evaluate"]
        if isinstance(evaluate, EvaluateSpec) and not {path[:2] for path in removed} & _READ_OF_EVALUATE:
            self.readable = replace(self.readable, evaluate=evaluate)
        return None

    def _readable_sections(self, data: dict[str, Data], wrong: set[Span]) -> ReadableSections:
        """Read each section by itself.

        Args:
            wrong: Values that make their section unreadable although it has the right form.
        """
        found: dict[str, Any] = {}
        for name in (each.name for each in fields(ReadableSections) if each.name != "name"):
            info = PipelineSpec.model_fields[name]
            key = info.alias or name
            if key not in data:
                found[name] = None if info.is_required() else info.default
            elif not wrong & spans(self.pipeline.sections[key]):
                annotation: Any = Annotated[(info.annotation, None, *info.metadata)]
                adapter = TypeAdapter[Any](annotation)
                with suppress(ValidationError):
                    found[name] = adapter.validate_python(data[key], by_alias=True, by_name=False)
        return ReadableSections(self.pipeline.name, **found)

    def _explain_the_rest(self, sections: dict[str, Spec | None], removed: set[tuple[Key, ...]]) -> None:
        """Report what does not fit together, too: pydantic stops before that when a value is wrong."""
        known = {finding.repeats for finding in self.findings}
        checks = self.readable.checks if self.readable is not None else None
        tables = self.readable.tables if self.readable is not None else None
        faults = (
            *section_faults(sections, removed=removed), *repeated_checks(checks or ()), *table_conflicts(tables or {})
        )  # fmt: skip
        for fault in faults:
            touches = any(path[: len(fault.at)] == fault.at[: len(path)] for path in removed)
            if not touches and tuple(fault) not in known:
                self._report.unfit((), fault)

    def _check_addresses(self, data: dict[str, Data]) -> None:
        """Report base models whose address is none, in `train`, in rungs and in sweeps."""
        for path in _addresses(data.get("train")) if self.address_fault is not None else ():
            entry, rest = find_entry(self.pipeline.root, ("train", *path))
            value: Any = data["train"]
            for key in path:
                value = value[key]
            if rest or not isinstance(value, str) or entry.span in self.use.failed or self.address_fault is None:
                continue
            fault = self.address_fault(value)
            if fault is not None:
                message, hint = f"`{entry.path}`: {self.use.masked(fault.message)}", fault.hint
                self._report.add(fault.code, message, span_of(entry), hint and self.use.masked(hint))

    def _deleted(self, data: dict[str, Data], error: ErrorDetails) -> bool:
        """Remove a null that deletes an inherited value and is not a value itself; return whether it was one."""
        path = place_of(PipelineSpec, error["loc"]).path
        entry, rest = find_entry(self.pipeline.root, path)
        if rest or not entry.deletes:
            return False
        inner: Any = data
        for key in path[:-1]:
            inner = inner[key]
        return inner.pop(path[-1], self) is not self


def _without_faults(
    model: type[Spec], data: Data, lost: Iterable[tuple[Key, ...]]
) -> tuple[Spec | None, set[tuple[Key, ...]]]:
    """Read a section without its wrong values, and return their paths; None if it cannot be read even so.

    Args:
        lost: Paths of values that are wrong whatever the model says.
    """
    data, removed = deepcopy(data), set[tuple[Key, ...]]()
    for path in lost:
        if not _remove(path, data, removed):
            return None, removed
    while True:
        earlier = frozenset(removed)
        try:
            return model.model_validate(data, by_alias=True, by_name=False), removed
        except ValidationError as error:
            wrong = {place_of(model, each["loc"]).path: each["type"] for each in error.errors(include_url=False)}
        for path, kind in wrong.items():
            if any(other != path and other[: len(path)] == path for other in wrong):
                continue  # such as a list that is too short without its invalid items
            if not path or path[:1] in earlier:
                return None, removed
            # What contradicts, or is missing, cannot be left out: the whole key of the section is.
            whole = kind in ("missing", "value_error") or path in earlier
            if not _remove(path[:1] if whole else path, data, removed):
                return None, removed


def _remove(path: tuple[Key, ...], data: Data, removed: set[tuple[Key, ...]]) -> bool:
    """Remove a value from a section and record its path; return false if it is not there or is the section itself."""
    if path[:1] in removed:
        return True
    if path and isinstance(path[-1], int):
        path = path[:1]  # the place of a value in a list must stay, so the whole key of the section goes
    inner: Any = data
    for key in path[:-1]:
        inner = inner[key]
    if not path or not isinstance(inner, dict) or inner.pop(path[-1], _ABSENT) is _ABSENT:
        return False
    removed.add(path)
    return True


def _paths(entry: Entry, spans: set[Span]) -> Iterator[tuple[Key, ...]]:
    """Paths below an entry to the values at these places."""
    if entry.span in spans:
        yield ()
    inner: Iterable[tuple[Key, Entry]] = ()
    if isinstance(entry.value, dict):
        inner = entry.value.items()
    elif isinstance(entry.value, list):
        inner = enumerate(entry.value)
    for key, each in inner:
        for path in _paths(each, spans):
            yield (key, *path)


def _addresses(train: object) -> Iterator[tuple[Key, ...]]:
    """Paths in `train` that may hold the address of a base model."""
    if not isinstance(train, dict):
        return
    if "base_model" in train:
        yield ("base_model",)
    rungs = ladder.get("rungs") if isinstance(ladder := train.get("ladder"), dict) else None
    for number, rung in enumerate(rungs if isinstance(rungs, list) else ()):
        if isinstance(rung, dict) and isinstance(rung.get("set"), dict) and "base_model" in rung["set"]:
            yield "ladder", "rungs", number, "set", "base_model"
    over = sweep.get("over") if isinstance(sweep := train.get("sweep"), dict) else None
    values = over.get("base_model") if isinstance(over, dict) else None
    for number, _ in enumerate(values if isinstance(values, list) else ()):
        yield "sweep", "over", "base_model", number


def _validated(data: dict[str, Data]) -> tuple[DataPipeline | None, list[ErrorDetails]]:
    model = pipeline_model({key for key, value in data.items() if value is not None})
    try:
        return model.model_validate(data, by_alias=True, by_name=False), []
    except ValidationError as error:
        return None, error.errors(include_url=False)
