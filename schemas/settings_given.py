"""Settings given for one run, `--set train.max_examples=200`: parsed as YAML, and merged over a pipeline's own.

Only `train` and `evaluate` are open to them. A limit of the gate is changed in the file, where others see it, and
curation stays as declared, because later runs build on its splits.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from schemas.diagnostics import ConfigErrors, Diagnostic, SourceText, Span
from schemas.merge import MergedPipeline, merge
from schemas.yaml_text import Entry, Mapping, read_tree

OPTION = "--set"
OPEN = ("train", "evaluate")
"""Sections in which a run may have other settings than the file."""
_FORM = re.compile(r"([a-z_]+(?:\.[a-z_][a-z0-9_]*)+)=(.*)", re.DOTALL)


class GivenSettings:
    """Settings of the command line, as further lines of the file that they change.

    Raises:
        ConfigErrors: TG0103, a setting is not PATH=VALUE, its section is not open, or its value is not YAML.
    """

    def __init__(self, source: SourceText, settings: Sequence[str]) -> None:
        self._n_lines = len(source.lines)
        self.source = SourceText(source.file, "\n".join([source.text, *(f"{OPTION} {each}" for each in settings)]))
        faults: list[Diagnostic] = []
        self._trees: list[Mapping] = []
        for number, setting in enumerate(settings, start=self._n_lines + 1):
            fault, tree = self._parsed(setting, number)
            faults += [fault] if fault else []
            self._trees += [tree] if tree else []
        if faults:
            raise ConfigErrors(map(self.placed, faults))

    def over(self, pipeline: MergedPipeline) -> MergedPipeline:
        """The pipeline with these settings; a later one of the same path wins."""
        sections = pipeline.sections
        for tree in self._trees:
            sections = merge(sections, tree)
        return replace(pipeline, root=pipeline.root._replace(value=sections), sections=sections)

    def placed(self, fault: Diagnostic) -> Diagnostic:
        """The fault with its place: in the file, or in a setting."""
        if fault.span is None or fault.span.line <= self._n_lines:
            return fault
        return replace(fault, file=OPTION, span=fault.span._replace(line=fault.span.line - self._n_lines))

    def _parsed(self, setting: str, number: int) -> tuple[Diagnostic | None, Mapping | None]:
        before = len(OPTION) + 1
        form = _FORM.fullmatch(setting)
        if form is None or "\n" in setting:
            message = f"{OPTION} should be PATH=VALUE on one line, such as train.max_examples=200"
            return self.source.fault("TG0103", message, Span(number, before + 1, max(1, len(setting)))), None
        path = form[1].split(".")
        if path[0] not in OPEN:
            message = f"{OPTION} {form[1]}: allowed in {' and '.join(OPEN)}; others are changed in the file"
            return self.source.fault("TG0103", message, Span(number, before + 1, len(form[1]))), None
        try:
            value = read_tree(SourceText(OPTION, f"v: {form[2]}"))["v"]
        except ConfigErrors as error:
            first = error.diagnostics[0]
            return self.source.fault("TG0103", first.message, Span(number, before + 1, len(setting)), first.help), None
        key = Span(number, before + 1, len(form[1]))
        entry = _moved(value, number, before + len(form[1]) + 1 - len("v: "), form[1])._replace(key=key)
        for name in reversed(path[1:]):
            entry = Entry({name: entry}, key, key, path[0])
        return None, {path[0]: entry}


def _moved(entry: Entry, line: int, columns: int, path: str) -> Entry:
    """The value at its place in the setting, with the setting's path."""
    key, span = (each._replace(line=line, column=each.column + columns) for each in (entry.key, entry.span))
    value = entry.value
    if isinstance(value, dict):
        value = {name: _moved(each, line, columns, f"{path}.{name}") for name, each in value.items()}
    elif isinstance(value, list):
        value = [_moved(each, line, columns, f"{path}[{index}]") for index, each in enumerate(value)]
    return Entry(value, key, span, path)
