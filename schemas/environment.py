"""Resolve `${env:NAME}` and `${env:NAME:-default}` in the values of a configuration file.

As in a shell, the default also replaces a variable that is empty. Pipelines are resolved after they are merged, so that
a value which a child replaces needs no variable. Messages never contain the value of a variable: it may be a secret.
"""

import re
from collections.abc import Mapping as Environ
from dataclasses import dataclass, field
from typing import TypeAlias

from schemas.diagnostics import Diagnostic, SourceText, Span
from schemas.names import nearest
from schemas.secret import is_secret, variable_of
from schemas.yaml_text import Entry, Plain

Data: TypeAlias = "Plain | list[Data] | dict[str, Data]"

_REFERENCE = re.compile(r"\$(?P<literal>\$\{)|\$\{(?P<inner>[^{}]*)(?P<end>\}?)")
_NAMED = re.compile(r"env:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-.*)?", re.DOTALL)


@dataclass
class Substitution:
    """Converts a tree to plain data with the values of the environment.

    A substituted value is text, which is parsed if a number, true or false is needed. `$${` is a literal `${`. A
    credential (`schemas/secret.py`) stays a reference, but its variable must be set.

    Attributes:
        values: Variable -> value, of the variables that were used.
        failed: Places of references that could not be resolved; the data has an empty text there.
    """

    source: SourceText
    environ: Environ[str, str]
    values: dict[str, str] = field(default_factory=dict)
    failed: set[Span] = field(default_factory=set)
    faults: list[Diagnostic] = field(default_factory=list)

    def data(self, entry: Entry) -> Data:
        """The value of an entry."""
        if isinstance(entry.value, dict):
            return {key: self.data(each) for key, each in entry.value.items()}
        if isinstance(entry.value, list):
            return [self.data(each) for each in entry.value]
        return self._resolved(entry.value, entry) if isinstance(entry.value, str) else entry.value

    def masked(self, text: str) -> str:
        """The text with each variable's value replaced by its reference.

        >>> use = Substitution(SourceText("f", ""), {}, values={"TOKEN": "s3cret"})
        >>> use.masked("'s3cret' is no slice")
        "'${env:TOKEN}' is no slice"
        """
        for name, value in sorted(self.values.items(), key=lambda item: -len(item[1])):
            for form in {value, repr(value)[1:-1]} - {""}:
                text = text.replace(form, f"${{env:{name}}}")
        return text

    def _resolved(self, text: str, entry: Entry) -> str:
        def value(match: re.Match[str]) -> str:
            if match["literal"]:
                return match["literal"]
            named = _NAMED.fullmatch(match["inner"])
            if named is None or not match["end"]:
                self._fail(entry, f"`{entry.path}` has an invalid reference", _FORM)
                return ""
            name, default = named["name"], named["default"]
            found = self.environ.get(name)
            if not found and default is not None:
                return str(default[2:])
            return self._look_up(name, entry)

        if is_secret(entry.path):
            if (name := variable_of(text)) is not None:
                self._look_up(name, entry)
            return text  # the spec refuses anything else
        return _REFERENCE.sub(value, text)

    def _look_up(self, name: str, entry: Entry) -> str:
        found = self.environ.get(name)
        if found is None:
            default_form = f"export it, or give a default: `${{env:{name}:-value}}`"
            hint = nearest(name, self.environ) or ("export it" if is_secret(entry.path) else default_form)
            self._fail(entry, f"environment variable {name} is not set, needed by `{entry.path}`", hint)
            return ""
        self.values[name] = found
        return found

    def _fail(self, entry: Entry, message: str, hint: str) -> None:
        self.failed.add(entry.span)
        self.faults.append(self.source.fault("TG0106", message, entry.span, hint))


_FORM = "write `${env:NAME}` or `${env:NAME:-default}`; `$${` is a literal `${`"
