"""How a row of one CSV file begins, learned from its first rows: tells a row from a line of a longer text.

Where a quote is lost, the lines of a text stand where rows are expected, and a line with as many commas as the header
has passes for a row. Ids, times and the like have a form (`T-104`, `2026-06-01 10:00`) that such a line lacks.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

MIN_ROWS = 3
"""Fewer rows show no form."""
_COVERED = 0.95
"""Share of a column's values that its forms must cover (0-1)."""
_MAX_FORMS = 4
_MIN_LABELLED = 20  # rows
_MAX_VALUE = 64  # characters; a longer value is a text
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class RowForm:
    """What all rows have in common.

    Attributes:
        separator: Between fields.
        columns: Place of a column -> the forms of its values.
        is_quoted: Rows begin with a quote.
        has_quotes: Some fields are quoted, so a quote inside an unquoted field is an error.
        encoding: Of the file.
        has_escapes: Fields have marks of escapes (`escapes.py`).
    """

    separator: str
    columns: dict[int, frozenset[str]]
    is_quoted: bool = False
    has_quotes: bool = False
    encoding: str = "utf-8"
    has_escapes: bool = False

    @property
    def is_known(self) -> bool:
        """False where rows have nothing in common by which a line could be judged."""
        return self.is_quoted or bool(self.columns)

    def fits(self, text: str, fields: Sequence[str]) -> bool:
        """True for a row whose fields all have the form of their columns.

        Args:
            text: The row as it is in the file.
        """
        if self.is_quoted and not _begins_quoted(text):
            return False
        return all(_has_form(fields[place], forms) for place, forms in self.columns.items())

    def begins_row(self, line: str) -> bool | None:
        """True for a line that begins like a row, whatever follows; None where the beginning says nothing."""
        if self.is_quoted and not _begins_quoted(line):
            return False
        if 0 not in self.columns:
            return True if self.is_quoted else None
        first = line[1:].partition('"')[0] if line.startswith('"') else line.partition(self.separator)[0]
        return _has_form(first.rstrip("\r\n"), self.columns[0])


def learn_form(rows: Iterable[tuple[str, Sequence[str]]], *, separator: str) -> RowForm:
    """The form of rows that are known to be whole, or nearly all of them.

    Args:
        rows: Each as it is in the file, and its fields.

    >>> form = learn_form([(f"T-{n},Hello {n}", [f"T-{n}", "x" * n]) for n in range(5)], separator=",")
    >>> form.begins_row("T-77,and then"), form.begins_row("Then, it broke")
    (True, False)
    """
    seen = list(rows)
    has_quotes = any(text.startswith('"') or f'{separator}"' in text for text, _ in seen)
    if len(seen) < MIN_ROWS:
        return RowForm(separator, {}, has_quotes=has_quotes)
    by_place = dict(enumerate(zip(*(fields for _, fields in seen), strict=True)))
    columns = _each(by_place, _common_forms) | _each(by_place, _labels)
    if not columns:
        columns = _each(by_place, partial(_common_forms, of_words=True))
    n_quoted = sum(_begins_quoted(text) for text, _ in seen)
    return RowForm(separator, columns, is_quoted=n_quoted >= _COVERED * len(seen), has_quotes=has_quotes)


def form_of(value: str) -> str:
    """The value with each word replaced by its kind: 9 for digits, a for letters, x for both.

    >>> form_of("T-104"), form_of("2026-06-01 10:00"), form_of("it broke")
    ('a-9', '9-9-9 9:9', 'a a')
    """
    return _WORD.sub(_kind_of_word, value[:_MAX_VALUE])


def _kind_of_word(found: re.Match[str]) -> str:
    word = found.group()
    return "9" if word.isdigit() else "a" if word.isalpha() else "x"


def _loosely(form: str) -> str:
    """The form without the kinds of its words: in a UUID each group may be digits, letters or both."""
    return re.sub("[9ax]", "w", form)


def _has_form(value: str, forms: frozenset[str]) -> bool:
    form = form_of(value)
    return form in forms or f"={value}" in forms or (_has_digit(form) and _loosely(form) in forms)


def _has_digit(form: str) -> bool:
    return "9" in form or "x" in form


def _each(
    columns: Mapping[int, Sequence[str]], learn: Callable[[Sequence[str]], frozenset[str] | None]
) -> dict[int, frozenset[str]]:
    return {place: forms for place, values in columns.items() if (forms := learn(values))}


def _labels(values: Sequence[str]) -> frozenset[str] | None:
    """The values of a column in which the same few come again and again, each marked as a value."""
    counts = Counter(values)
    if len(values) < _MIN_LABELLED or 2 * len(counts) > len(values) or max(map(len, counts)) > _MAX_VALUE:
        return None
    return frozenset(f"={value}" for value, n_rows in counts.items() if n_rows > 1)


def _common_forms(values: Sequence[str], *, of_words: bool = False) -> frozenset[str] | None:
    """The few forms of a column, each with a digit; None for a column of words, whose forms a text has as well.

    Args:
        of_words: Accept forms without a digit, if they have no space.
    """
    counts = Counter(map(form_of, values))
    n_blank = counts.pop("", 0)
    n_filled = counts.total()
    if 2 * n_filled < len(values):
        return None
    loose: Counter[str] = Counter()
    for form, n_values in counts.items():
        if _has_digit(form) and " " not in form:
            loose[_loosely(form)] += n_values
    for forms in (counts, loose):
        n_covered, common = 0, []
        for form, n_values in forms.most_common(_MAX_FORMS):
            if n_covered < _COVERED * n_filled:
                n_covered += n_values
                common.append(form)
        if n_covered >= _COVERED * n_filled and (
            forms is loose or all(_has_digit(form) or (of_words and " " not in form) for form in common)
        ):
            return frozenset([*common, *([""] if n_blank else [])])
    return None


def _begins_quoted(text: str) -> bool:
    """True for `"a` and `"",`: but not for a doubled quote, which stands inside a text."""
    return text.startswith('"') and not re.match(r'""[^,;\t\r\n"]', text)
