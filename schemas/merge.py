"""Merge `defaults`, the parent (`extends`) and a pipeline's own settings; each value keeps its place in the file.

Knows the frame of the file, not the content of a pipeline.

- Maps are merged recursively, lists replace, null deletes what was inherited.
- A section whose `kind` (or `uses`) changes is replaced completely: the keys of another kind would not fit.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from schemas.diagnostics import ConfigErrors, Diagnostic, SourceText, Span
from schemas.names import closest
from schemas.yaml_text import MAX_VALUES, Entry, Mapping, Plain, size

VERSION = 1
MAX_PIPELINES = 200
MAX_MERGED = 10 * MAX_VALUES
"""Of all pipelines together, after merging."""

_TOP_KEYS = ("version", "defaults", "pipelines")


@dataclass(frozen=True)
class MergedPipeline:
    """One pipeline with everything that it inherits.

    Attributes:
        parent: The pipeline in `extends`, whose faults this one repeats.
        root: The entry of the pipeline's name, with `sections` as its value.
        sections: Without `extends`.
    """

    name: str
    parent: str | None
    root: Entry
    sections: Mapping


def merge_pipelines(tree: Mapping, source: SourceText) -> tuple[list[MergedPipeline], list[Diagnostic]]:
    """Merge each pipeline with its parents, parents first; also return the faults of the file's frame.

    A pipeline with an invalid parent is left out, and is among the faults.

    Raises:
        ConfigErrors: TG0109, there are too many pipelines or values.
    """
    faults = list(_frame_faults(tree, source))
    defaults = _section(tree, "defaults", source, faults)
    pipelines = _section(tree, "pipelines", source, faults)
    faults += _refused(defaults, source, "extends", "a pipeline extends another one; all of them get the defaults")
    faults += _refused(defaults, source, "name", "a pipeline's name is its key under `pipelines`")
    if len(pipelines) > MAX_PIPELINES:
        message = f"more than {MAX_PIPELINES} pipelines"
        raise ConfigErrors([*faults, source.fault("TG0109", message, tree["pipelines"].key, "split the file")])

    own: dict[str, Mapping] = {}
    parents: dict[str, str | None] = {}
    lost: set[str] = set()
    for name, entry in pipelines.items():
        sections = entry.value
        if not isinstance(sections, dict):
            faults.append(_no_mapping(entry, source))
            lost.add(name)
            continue
        own[name] = sections
        fault = _parent_fault(sections, pipelines, source)
        if fault is not None:
            faults.append(fault)
            lost.add(name)
        parents[name] = _text(sections, "extends")

    done: dict[str, MergedPipeline] = {}
    n_values = 0
    for name in pipelines:
        lineage, cycle = _lineage(name, parents, lost, done)
        if cycle:
            circle = " -> ".join([*cycle, cycle[0]])
            span = own[cycle[0]]["extends"].span
            faults.append(source.fault("TG0104", f"pipelines extend each other in a circle: {circle}", span))
            lost |= set(cycle)
        for each in lineage:
            parent = parents[each]
            faults += _refused(own[each], source, "name", "a pipeline's name is its key under `pipelines`")
            merged = merge(done[parent].sections if parent else defaults, own[each])
            sections = {key: entry for key, entry in merged.items() if key not in ("name", "extends")}
            n_values += size(sections)[0]
            if n_values > MAX_MERGED:
                message = f"the pipelines have more than {MAX_MERGED:,} values after merging"
                raise ConfigErrors([*faults, source.fault("TG0109", message, pipelines[each].key)])
            done[each] = MergedPipeline(each, parent, pipelines[each]._replace(value=sections), sections)
    return list(done.values()), faults


def merge(base: Mapping, over: Mapping) -> Mapping:
    """Merge `over` onto `base`. An entry that deletes an inherited one stays, marked, so that a fault can show it."""
    entries = dict(base)
    for key, entry in over.items():
        lower, upper = entries[key].value if key in entries else None, entry.value
        if key not in entries:
            entries[key] = entry
        elif isinstance(lower, dict) and isinstance(upper, dict) and not _kind_changes(lower, upper):
            entries[key] = entry._replace(value=merge(lower, upper))
        else:
            entries[key] = entry._replace(deletes=upper is None)
    return entries


def _kind_changes(below: Mapping, above: Mapping) -> bool:
    kinds = _kind_of(below), _kind_of(above)
    return None not in kinds and kinds[0] != kinds[1]


def _kind_of(sections: Mapping) -> Plain:
    """The `kind` or `uses` of a section with variants; None without one."""
    values = (sections[key].value for key in ("kind", "uses") if key in sections)
    return next((value for value in values if not isinstance(value, dict | list)), None)


def _lineage(
    name: str, parents: dict[str, str | None], lost: set[str], done: dict[str, MergedPipeline]
) -> tuple[list[str], list[str]]:
    """The ancestors of `name` that are not merged yet, oldest first, and `name`; or nothing and their circle."""
    chain: list[str] = []
    each: str | None = name
    while each is not None and each not in done:
        if each in chain:
            lost |= set(chain)
            return [], chain[chain.index(each) :]
        if each in lost:
            lost |= set(chain)
            return [], []
        chain.append(each)
        each = parents[each]
    return chain[::-1], []


def _frame_faults(tree: Mapping, source: SourceText) -> Iterator[Diagnostic]:
    for key, entry in tree.items():
        if key not in _TOP_KEYS and not key.startswith("x-"):
            yield source.fault("TG0101", f"unknown key `{entry.path}`", entry.key, closest(key, _TOP_KEYS))
    version = tree.get("version")
    if version is None:
        yield source.fault("TG0102", "missing key `version`", Span(1, 1), f"start the file with `version: {VERSION}`")
    elif repr(version.value) != str(VERSION):
        yield source.fault(
            "TG0103", f"`version` should be {VERSION}", version.key, "the only version that this program reads"
        )
    if "pipelines" not in tree:
        yield source.fault("TG0102", "missing key `pipelines`", Span(1, 1), "declare a pipeline under `pipelines`")


def _section(tree: Mapping, key: str, source: SourceText, faults: list[Diagnostic]) -> Mapping:
    """A top-level section; empty if it is missing or wrong."""
    entry = tree.get(key)
    section = entry.value if entry else {}
    if entry and (not isinstance(section, dict) or (key == "pipelines" and not section)):
        faults.append(_no_mapping(entry, source))
    return section if isinstance(section, dict) else {}


def _no_mapping(entry: Entry, source: SourceText) -> Diagnostic:
    return source.fault("TG0103", f"`{entry.path}` should be a mapping with at least one key", entry.key)


def _refused(sections: Mapping, source: SourceText, key: str, hint: str) -> Iterator[Diagnostic]:
    if key in sections:
        entry = sections[key]
        yield source.fault("TG0101", f"unknown key `{entry.path}`", entry.key, hint)


def _parent_fault(sections: Mapping, pipelines: Mapping, source: SourceText) -> Diagnostic | None:
    entry = sections.get("extends")
    if entry is None:
        return None
    parent = _text(sections, "extends")
    if parent is None:
        return source.fault("TG0103", f"`{entry.path}` should be the name of one pipeline", entry.key)
    if parent not in pipelines:
        message = f"`{entry.path}` names no pipeline: {parent!r}"
        return source.fault("TG0104", message, entry.span, closest(parent, pipelines, "pipelines"))
    return None


def _text(sections: Mapping, key: str) -> str | None:
    value = sections[key].value if key in sections else None
    return value if isinstance(value, str) else None
