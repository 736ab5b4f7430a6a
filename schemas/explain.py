"""Translate pydantic's errors about a part of a file into sentences, each at the place of its value.

A pydantic location is noisy: it has the chosen variant of a union (`source.generated.n_tickets`) and the branch that
was tried (`target_modules.tuple[str, ...]`); `place_of` follows it through the types to separate keys from noise.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from schemas.diagnostics import Diagnostic, SourceText, Span
from schemas.environment import Substitution
from schemas.kinds import Kinds
from schemas.names import closest, nearest
from schemas.spec import Conflict, Spec, UnfitError
from schemas.yaml_text import Entry, shown

Key = str | int

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
class FileFault:
    """A fault of one file, or of one pipeline in it.

    Attributes:
        repeats: Identifies the same fault in a parent; None if the place in the file does.
    """

    diagnostic: Diagnostic
    repeats: tuple[object, ...] | None = None


@dataclass
class Explanation:
    """The faults of a part of a file that was read as `model`, collected in `findings`.

    Attributes:
        root: The part.
        keys: What is allowed at its top.
    """

    model: type[BaseModel]
    root: Entry
    keys: tuple[str, ...]
    source: SourceText
    use: Substitution
    findings: list[FileFault] = field(default_factory=list)

    def explain(self, errors: Iterable[ErrorDetails]) -> None:
        """Report errors of pydantic. Of the branches of a union, those that matched furthest are reported."""
        places = [(place_of(self.model, error["loc"]), error) for error in errors]
        deepest = {p.path[: p.union] for p, _ in places if p.union is not None and len(p.path) > p.union}
        groups: dict[tuple[Key, ...], list[tuple[ErrorPlace, ErrorDetails]]] = {}
        for place, error in places:
            if place.union is None or len(place.path) > place.union or place.path not in deepest:
                groups.setdefault(place.path, []).append((place, error))
        for path, group in groups.items():
            self._explain(path, group)

    def explain_confused(self, value: object) -> set[Span]:
        """Report true for 1 and 1 for true, which pydantic accepts, in what was read; return their places."""
        confused = list(_confused(value, self.root))
        for entry, wanted in confused:
            self.add("TG0103", f"`{entry.path}` should be {wanted}, got {_got(entry)}", entry.span)
        return {entry.span for entry, _ in confused}

    def _explain(self, path: tuple[Key, ...], errors: list[tuple[ErrorPlace, ErrorDetails]]) -> None:
        place, error = errors[0]
        kind = error["type"]
        entry, rest = find_entry(self.root, path)
        label = "".join([entry.path, *(f".{shown(str(key))}" for key in rest)]).lstrip(".")
        context = error.get("ctx", {})
        if entry.span in self.use.failed:
            return
        if kind == "too_short" and isinstance(entry.value, list) and entry.value:
            return  # pydantic counts only valid items; the invalid ones are already reported
        if kind == "value_error":
            self._contradiction(path, entry, context["error"])
        elif kind == "extra_forbidden" or place.is_key:
            known = self.keys if len(path) == 1 else place.known
            form = f"a key here should {_expected(error)}" if kind == "string_pattern_mismatch" else None
            self.add("TG0101", f"unknown key `{label}`", entry.key, form or closest(str(path[-1]), known))
        elif kind == "missing":
            self.add("TG0102", f"missing key `{label}`", entry.key, place.meaning or None, (path, kind))
        elif kind == "union_tag_not_found":
            key = str(context["discriminator"]).strip("'")
            help = f"one of {', '.join(place.known)}"
            self.add("TG0102", f"missing key `{label}.{key}`", entry.key, help, (path, kind))
        elif kind == "union_tag_invalid":
            key = str(context["discriminator"]).strip("'")
            tag, _ = find_entry(entry, (key,))
            if tag.span not in self.use.failed:
                expected = f"should be one of {', '.join(place.known)}"
                self.add("TG0103", f"`{tag.path}` {expected}, got {_got(tag)}", span_of(tag), _near(tag, place.known))
        elif rest:  # the name of the pipeline, its key
            help = "a pipeline's name has lower-case letters, digits and `-`, and starts with a letter"
            self.add("TG0103", f"`{entry.path}` is not a valid name of a pipeline", entry.key, help)
        else:
            first, *others = dict.fromkeys(_expected(each) for _, each in errors)
            expected = " or ".join([first, *(other.removeprefix("be ") for other in others)])
            allowed = re.findall(r"'([^']*)'", str(context.get("expected", "")))
            # The meaning of the key helps more than its pattern.
            meaning = place.meaning if kind == "string_pattern_mismatch" else ""
            form = _as_mapping(entry, str(path[-1]), str(context.get("class_name", ""))) if path else None
            hint = form or _near(entry, allowed) or _hint(entry, kind) or meaning or None
            self.add("TG0103", f"`{label}` should {expected}, got {_got(entry)}", span_of(entry), hint)

    def _contradiction(self, path: tuple[Key, ...], entry: Entry, error: Exception) -> None:
        """Report a validator's message about one value, or about settings that do not fit together."""
        if not isinstance(error, UnfitError):
            message = f"`{entry.path}`: {self.use.masked(str(error))}"
            if not isinstance(entry.value, dict | list):
                self.add("TG0103", message, span_of(entry))
            elif not self.use.failed & spans(entry):
                self.add("TG0111", message, entry.key, None, (path, str(error)))
            return
        for fault in () if self.use.failed else error.faults:
            self.unfit(path, fault)

    def unfit(self, path: tuple[Key, ...], fault: Conflict) -> None:
        """Report settings below `path` that do not fit together."""
        entry, rest = find_entry(self.root, (*path, *fault.at))
        span = entry.key if rest else span_of(entry)
        hint = fault.hint and self.use.masked(fault.hint)
        self.add("TG0111", f"`{entry.path}`: {self.use.masked(fault.message)}", span, hint, tuple(fault))

    def add(
        self, code: str, message: str, span: Span, help: str | None = None, repeats: tuple[object, ...] | None = None
    ) -> None:
        """Add a fault to the findings."""
        self.findings.append(FileFault(self.source.fault(code, message, span, help), repeats))


def find_entry(root: Entry, path: tuple[Key, ...]) -> tuple[Entry, tuple[Key, ...]]:
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


def span_of(entry: Entry) -> Span:
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


def spans(entry: Entry) -> set[Span]:
    """The places of the values below an entry."""
    if not isinstance(entry.value, dict | list):
        return {entry.span}
    inner = entry.value.values() if isinstance(entry.value, dict) else entry.value
    return set().union(*(spans(each) for each in inner))


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


def model_keys(model: type[BaseModel]) -> tuple[str, ...]:
    """The keys of a section."""
    return tuple(_shape(model).fields)


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
