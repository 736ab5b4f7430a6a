"""Validate one merged pipeline: return it typed, or its faults, each at the place of its value in the file.

Translates pydantic's errors into sentences. A pydantic location is noisy: it has the chosen variant of a union
(`source.generated.n_tickets`) and the branch that was tried (`target_modules.tuple[str, ...]`); `place_of` follows it
through the types to separate keys from noise.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field, fields, replace
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from schemas.choice import TrainSection
from schemas.curation import CurateSpec, SplitSpec, TableSpec
from schemas.data_checks import DataCheck, repeated_checks
from schemas.diagnostics import Diagnostic, SourceText, Span
from schemas.environment import Data, Substitution
from schemas.errors import TunegateError
from schemas.evaluation import EvaluateSpec
from schemas.gates import GatesSpec
from schemas.kinds import Kinds
from schemas.merge import MergedPipeline
from schemas.named_tables import NamedTable, table_conflicts
from schemas.names import closest, nearest
from schemas.pipeline import DataPipeline, PipelineSpec, pipeline_model
from schemas.pipeline_rules import METRIC_KEYS, section_faults
from schemas.source import SourceSpec
from schemas.spec import Conflict, Spec, UnfitError
from schemas.yaml_text import Entry, shown

Key = str | int
SECTIONS: dict[str, type[Spec]] = {
    "train": TrainSection, "split": SplitSpec, "evaluate": EvaluateSpec, "gates": GatesSpec,
}  # fmt: skip
"""Sections that must fit together."""
_READ_OF_EVALUATE = {("evaluate", key) for key in (*METRIC_KEYS, "arms", "corpus", "max_items")}
"""What faults and advice beyond the file itself are about; its other keys may be wrong."""
_ABSENT = object()

_SHOULD_BE = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
}


@dataclass(frozen=True)
class PipelineFault:
    """A fault of one pipeline.

    Attributes:
        repeats: Identifies the same fault in a parent; None if the place in the file does.
    """

    diagnostic: Diagnostic
    repeats: tuple[object, ...] | None = None


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
    findings: list[PipelineFault] = field(default_factory=list)
    readable: ReadableSections | None = None
    """None if the pipeline is valid."""

    def spec(self) -> DataPipeline | None:
        """The typed pipeline; None if it has faults."""
        root = self.pipeline.root
        data = {key: self.use.data(entry) for key, entry in self.pipeline.sections.items()}
        data["name"] = self.pipeline.name
        spec, errors = _validated(data)
        if [error for error in errors if self._deleted(data, error)]:
            spec, errors = _validated(data)
        for path, group in _grouped(errors).items():
            self._explain(path, group)
        self._check_addresses(data)
        confused = list(_confused(spec, root)) if spec is not None else []
        for entry, wanted in confused:
            self._add("TG0103", f"`{entry.path}` should be {wanted}, got {_got(entry)}", entry.span)
        self.findings += [PipelineFault(fault) for fault in self.use.faults]
        if not self.findings:
            return spec
        wrong = self.use.failed | {entry.span for entry, _ in confused}
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
            elif not wrong & _spans(self.pipeline.sections[key]):
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
                self._unfit((), fault)

    def _check_addresses(self, data: dict[str, Data]) -> None:
        """Report base models whose address is none, in `train`, in rungs and in sweeps."""
        for path in _addresses(data.get("train")) if self.address_fault is not None else ():
            entry, rest = _find(self.pipeline.root, ("train", *path))
            value: Any = data["train"]
            for key in path:
                value = value[key]
            if rest or not isinstance(value, str) or entry.span in self.use.failed or self.address_fault is None:
                continue
            fault = self.address_fault(value)
            if fault is not None:
                message, hint = f"`{entry.path}`: {self.use.masked(fault.message)}", fault.hint
                self._add(fault.code, message, _place(entry), hint and self.use.masked(hint))

    def _deleted(self, data: dict[str, Data], error: ErrorDetails) -> bool:
        """Remove a null that deletes an inherited value and is not a value itself; return whether it was one."""
        path = place_of(PipelineSpec, error["loc"]).path
        entry, rest = _find(self.pipeline.root, path)
        if rest or not entry.deletes:
            return False
        inner: Any = data
        for key in path[:-1]:
            inner = inner[key]
        return inner.pop(path[-1], self) is not self

    def _explain(self, path: tuple[Key, ...], errors: list[tuple[ErrorPlace, ErrorDetails]]) -> None:
        place, error = errors[0]
        kind = error["type"]
        entry, rest = _find(self.pipeline.root, path)
        label = "".join([entry.path, *(f".{shown(str(key))}" for key in rest)])
        context = error.get("ctx", {})
        if entry.span in self.use.failed:
            return
        if kind == "too_short" and isinstance(entry.value, list) and entry.value:
            return  # pydantic counts only valid items; the invalid ones are already reported
        if kind == "value_error":
            self._contradiction(path, entry, context["error"])
        elif kind == "extra_forbidden" or place.is_key:
            known = [*(key for key in place.known if key != "name"), "extends"] if len(path) == 1 else place.known
            form = f"a key here should {_expected(error)}" if kind == "string_pattern_mismatch" else None
            self._add("TG0101", f"unknown key `{label}`", entry.key, form or closest(str(path[-1]), known))
        elif kind == "missing":
            self._add("TG0102", f"missing key `{label}`", entry.key, place.meaning or None, (path, kind))
        elif kind == "union_tag_not_found":
            key = str(context["discriminator"]).strip("'")
            help = f"one of {', '.join(place.known)}"
            self._add("TG0102", f"missing key `{label}.{key}`", entry.key, help, (path, kind))
        elif kind == "union_tag_invalid":
            key = str(context["discriminator"]).strip("'")
            tag, _ = _find(entry, (key,))
            if tag.span not in self.use.failed:
                expected = f"should be one of {', '.join(place.known)}"
                self._add("TG0103", f"`{tag.path}` {expected}, got {_got(tag)}", _place(tag), _near(tag, place.known))
        elif rest:  # the name of the pipeline, its key
            help = "a pipeline's name has lower-case letters, digits and `-`, and starts with a letter"
            self._add("TG0103", f"`{entry.path}` is not a valid name of a pipeline", entry.key, help)
        else:
            first, *others = dict.fromkeys(_expected(each) for _, each in errors)
            expected = " or ".join([first, *(other.removeprefix("be ") for other in others)])
            known = re.findall(r"'([^']*)'", str(context.get("expected", "")))
            # The meaning of the key helps more than its pattern.
            meaning = place.meaning if kind == "string_pattern_mismatch" else ""
            form = _as_mapping(entry, str(path[-1]), str(context.get("class_name", ""))) if path else None
            hint = form or _near(entry, known) or _hint(entry, kind) or meaning or None
            self._add("TG0103", f"`{label}` should {expected}, got {_got(entry)}", _place(entry), hint)

    def _contradiction(self, path: tuple[Key, ...], entry: Entry, error: Exception) -> None:
        """Report a validator's message about one value, or about settings that do not fit together."""
        if not isinstance(error, UnfitError):
            message = f"`{entry.path}`: {self.use.masked(str(error))}"
            if not isinstance(entry.value, dict | list):
                self._add("TG0103", message, _place(entry))
            elif not self.use.failed & _spans(entry):
                self._add("TG0111", message, entry.key, None, (path, str(error)))
            return
        for fault in () if self.use.failed else error.faults:
            self._unfit(path, fault)

    def _unfit(self, path: tuple[Key, ...], fault: Conflict) -> None:
        entry, rest = _find(self.pipeline.root, (*path, *fault.at))
        span = entry.key if rest else _place(entry)
        hint = fault.hint and self.use.masked(fault.hint)
        self._add("TG0111", f"`{entry.path}`: {self.use.masked(fault.message)}", span, hint, tuple(fault))

    def _add(
        self, code: str, message: str, span: Span, help: str | None = None, repeats: tuple[object, ...] | None = None
    ) -> None:
        self.findings.append(PipelineFault(self.source.fault(code, message, span, help), repeats))


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


def _grouped(errors: list[ErrorDetails]) -> dict[tuple[Key, ...], list[tuple[ErrorPlace, ErrorDetails]]]:
    """Errors by their place. Of the branches of a union, those that matched furthest are reported."""
    places = [(place_of(PipelineSpec, error["loc"]), error) for error in errors]
    deepest = {p.path[: p.union] for p, _ in places if p.union is not None and len(p.path) > p.union}
    groups: dict[tuple[Key, ...], list[tuple[ErrorPlace, ErrorDetails]]] = {}
    for place, error in places:
        if place.union is None or len(place.path) > place.union or place.path not in deepest:
            groups.setdefault(place.path, []).append((place, error))
    return groups


def _find(root: Entry, path: tuple[Key, ...]) -> tuple[Entry, tuple[Key, ...]]:
    """The innermost entry on the path, and the keys that are not in the file."""
    entry = root
    for index, key in enumerate(path):
        value = entry.value
        if isinstance(value, dict) and key in value:
            entry = value[str(key)]
        elif isinstance(value, list) and isinstance(key, int) and key < len(value):
            entry = value[key]
        else:
            return entry, path[index:]
    return entry, ()


def _place(entry: Entry) -> Span:
    """Where a wrong value is: the value itself if it is a word, else its key."""
    return entry.span if entry.span.width and not isinstance(entry.value, dict | list) else entry.key


def _expected(error: ErrorDetails) -> str:
    if error["type"] in _SHOULD_BE:
        return f"be {_SHOULD_BE[error['type']]}"
    if error["type"] == "too_short":
        return f"hold at least {error['ctx']['min_length']} item"
    return re.sub(r"^\w+ should ", "", error["msg"])


def _got(entry: Entry) -> str:
    value = entry.value
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, str):
        return shown(repr(value))
    return "nothing" if value is None else shown(str(value).lower())


def _near(entry: Entry, known: list[str] | tuple[str, ...]) -> str | None:
    return nearest(entry.value, known) if isinstance(entry.value, str) else None


def _hint(entry: Entry, kind: str) -> str | None:
    if isinstance(entry.value, str) and "${" in entry.value:
        return "the value of the variable is not shown: it may be a secret"
    is_word = entry.value is not None and not isinstance(entry.value, dict | list)
    return "quote it" if kind == "string_type" and is_word else None


def _as_mapping(entry: Entry, key: str, section: str) -> str | None:
    """The form of a section of which only one value was given, `names: rules`; None for anything else."""
    if isinstance(entry.value, dict | list) or entry.value is None:
        return None
    models = list(Spec.__subclasses__())
    for model in models:
        models += model.__subclasses__()  # the list grows while it is read
    fields = next((model.model_fields for model in models if model.__name__ == section), {})
    names = {info.alias or name: info for name, info in fields.items()}
    meant = next((name for name, info in names.items() if entry.value in get_args(info.annotation)), None)
    if meant is not None:
        return f"write `{key}: {{{meant}: {entry.value}}}`"
    return f"write `{key}: {{KEY: VALUE}}` with these keys: {', '.join(names)}" if names else None


def _spans(entry: Entry) -> set[Span]:
    """The places of the values below an entry."""
    if not isinstance(entry.value, dict | list):
        return {entry.span}
    inner = entry.value.values() if isinstance(entry.value, dict) else entry.value
    return set().union(*(_spans(each) for each in inner))


def _confused(value: object, entry: Entry) -> Iterator[tuple[Entry, str]]:
    """Entries with true for 1 or 1 for true, which pydantic accepts."""
    written = entry.value
    if isinstance(written, int | float):
        if isinstance(written, bool) != isinstance(value, bool):
            yield entry, "true or false" if isinstance(value, bool) else "a number"
    elif isinstance(written, dict) and isinstance(value, BaseModel):
        for name, info in type(value).model_fields.items():
            if (inner := written.get(info.alias or name)) is not None:
                yield from _confused(getattr(value, name), inner)
    elif isinstance(written, list) and isinstance(value, tuple):
        for item, inner in zip(value, written, strict=True):
            yield from _confused(item, inner)


class ErrorPlace(NamedTuple):
    """Where an error is, in keys of the file.

    Attributes:
        path: Keys and list indices.
        known: What is allowed for the last key: names of keys, or of variants.
        meaning: The documentation of the last key; empty if it has none.
        is_key: The error is about the last key itself, not its value.
        union: Number of keys before an undiscriminated union in the location; None without one.
    """

    path: tuple[Key, ...]
    known: tuple[str, ...]
    meaning: str
    is_key: bool
    union: int | None


class _Shape(NamedTuple):
    """A type without `| None` and `Annotated`, but with the union's discriminator."""

    type: Any
    discriminator: str | None = None

    @property
    def members(self) -> tuple[Any, ...]:
        """The types of a union; empty for anything else."""
        return get_args(self.type) if get_origin(self.type) in (Union, UnionType) else ()

    @property
    def fields(self) -> dict[str, FieldInfo]:
        """Key -> field of a section; empty for anything else."""
        if isinstance(self.type, type) and issubclass(self.type, BaseModel):
            return {field.alias or name: field for name, field in self.type.model_fields.items()}
        return {}

    def variants(self) -> dict[str, Any]:
        """Value of the discriminating key -> the section that it selects."""
        key = self.discriminator or ""
        return {tag: member for member in self.members for tag in get_args(member.model_fields[key].annotation)}


def place_of(model: type[BaseModel], location: tuple[Key, ...]) -> ErrorPlace:
    """The place of a pydantic error in the file that `model` was read from.

    >>> from schemas.pipeline import DataPipeline, PipelineSpec, pipeline_model
    >>> place_of(PipelineSpec, ("curate", "steps", 1, "dedup", "treshold")).path
    ('curate', 'steps', 1, 'treshold')
    """
    shape = _shape(model)
    path: list[Key] = []
    known: tuple[str, ...] = ()
    meaning = ""
    union: int | None = None
    for part in location:
        if shape.discriminator:
            shape = _shape(shape.variants()[str(part)])
        elif shape.members:
            union = len(path)
            shape = next((_shape(each) for each in shape.members if get_origin(each) is tuple), shape)
        elif part == "[key]":
            return ErrorPlace(tuple(path), known, "", True, union)
        else:
            path.append(part)
            known, meaning = tuple(shape.fields), ""
            field = shape.fields.get(str(part))
            arguments = get_args(shape.type)
            if field is not None:
                meaning = field.description or ""
                # pydantic stores the annotations of a field's type separately
                shape = _shape(Annotated[(field.annotation, None, *field.metadata)], field.discriminator)
            elif get_origin(shape.type) is dict:
                known = tuple(name for name in get_args(arguments[0]) if isinstance(name, str))
                shape = _shape(arguments[1])
            else:
                shape = _shape(arguments[0] if arguments else None)
    if shape.discriminator:
        known = tuple(shape.variants())
    return ErrorPlace(tuple(path), known, meaning, False, union)


def _shape(annotation: Any, discriminator: object = None) -> _Shape:
    while True:
        if get_origin(annotation) is Annotated:
            for extra in annotation.__metadata__:
                discriminator = getattr(extra, "discriminator", None) or discriminator
            kinds = next((extra for extra in annotation.__metadata__ if isinstance(extra, Kinds)), None)
            annotation = get_args(annotation)[0] if kinds is None else kinds.union
        elif get_origin(annotation) in (Union, UnionType) and type(None) in get_args(annotation):
            annotation = Union[tuple(each for each in get_args(annotation) if each is not type(None))]  # noqa: UP007
        else:
            return _Shape(annotation, discriminator if isinstance(discriminator, str) else None)
