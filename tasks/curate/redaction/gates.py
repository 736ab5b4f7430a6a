"""Select the texts that may contain personal data: cheap RE2 patterns for each type, tried on each text.

A gate may pass a text in which nothing is found, and never stops one in which something would be found.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import NamedTuple, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.curation_steps import RedactionType, RedactStep
from tasks.curate.redaction import addresses, announced, emails, name_rules
from tasks.curate.redaction.credentials import IS, PASSWORDS, THEN
from tasks.curate.redaction.numbers import IBAN_COUNTRIES, order_numbers
from tasks.curate.redaction.scripts import OTHER_DIGIT, OTHER_GAP, PASSWORD_WORDS
from tasks.curate.redaction.separators import ENTITY, INVISIBLE, UNUSUAL_SPACES, WIDEST_GAP

TEXTS = ("subject", "body", "reply", "messages")
Patterns = Mapping[RedactionType, tuple[str, ...]]

# \s, \w and \d cover Unicode in Python and only ASCII in RE2, so patterns here avoid them, or use \W where matching
# more is harmless.
_SPACE = r" \t\r\n\f\v"
_IS_VALUE = rf"(?i:{IS})[{_SPACE}]*[\"']?[A-Za-z’.-]*[^A-Za-z’.\-{_SPACE}\"',;<>\[\]{{}}]"
"""A value after "is" is a secret only if it has more than letters."""
_WORDY: Patterns = {
    "email": emails.GATE,
    "url": ("://", r"(?i:www)\."),
    "secret": (
        "-----BEGIN ", "AKIA", "ASIA", "eyJ", "[spr]k[-_]", "whsec_", "gh[pousr]_", "github_pat_", "glpat-",
        "xox[a-z]-", "xapp-", "AIza", r"ya29\.", r"SG\.", "npm_", "hf_", "(?i:bearer)[^A-Za-z0-9]",
        f"(?i:{PASSWORDS}|passcode|pass|clave|token|secret|key)[^A-Za-z0-9]*"
        f"(?:(?i:{IS})?[^A-Za-z0-9]*[:=]|[^A-Za-z0-9]{_IS_VALUE})",
        f"(?i:{PASSWORDS})[^A-Za-z0-9](?i:{THEN})[^A-Za-z0-9]"
        rf"(?:[A-Za-z0-9_\-{_SPACE}]|[^\x00-\x7f])*(?:{_IS_VALUE}|:)",
        # Any sign of a password that follows without ":".
        f"(?i:{PASSWORDS})[^A-Za-z0-9]{{1,3}}(?:(?i:from|to|auf|in)[^A-Za-z0-9]{{1,2}})?[^ ]*[0-9!@#$%^*+=]",
        "(?i:credentials|zugangsdaten|identifiants|credenciales|login data)[^A-Za-z0-9]*[:=]",
        "(?i:user(?:name)?)[^A-Za-z0-9]?/[^A-Za-z0-9]?(?i:pass)", "(?i:authorization)[^A-Za-z0-9]*(?i:basic)",
        "(?i:mysql).*-p",
        "(?i:pin|otp|passcode|cvv2?|cvc2?)[^A-Za-z0-9]",
        "://[^ ]+@",
    ),
}  # fmt: skip
_GAP = f" \u00a0\\t\\r\\n]{{0,{WIDEST_GAP}}}"
_NUMBERS: Patterns = {
    "iban": (f"(?i:{'|'.join(IBAN_COUNTRIES)})[0-9]{{2}}(?:[-{_GAP}[A-Za-z0-9]){{11}}",),
    "ip": (r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]", "::[0-9A-Fa-f]", "[0-9A-Fa-f]::", "(?:[0-9A-Fa-f]{1,4}:){7}"),
    "national_id": (
        f"[0-9](?:[-.+{_GAP}[0-9]){{7}}", "[A-Za-z]{2} {0,3}(?:[0-9]{2} {0,3}){3}[A-Da-d]",
        "[XYZxyz][ -]{0,3}[0-9]{7}", "(?i:[LMNPRTVWXY][0-9CFGHJKLMNPRTVWXYZ]{8})",
        "[A-Za-z]{6}[0-9LMNP-Vlmnp-v]{2}[A-Za-z][0-9LMNP-Vlmnp-v]{2}[A-Za-z][0-9LMNP-Vlmnp-v]{3}[A-Za-z]",
    ),
    "card": (f"[0-9](?:[-./_{_GAP}[0-9]){{11}}",),
    "phone": (f"[0-9](?:[-./(){_GAP}[0-9]){{6}}",),
    "mac": ("(?:[0-9A-Fa-f]{2}[:-]){3}", "(?:[0-9A-Fa-f]{4}[.]){2}[0-9A-Fa-f]{4}"),
}  # fmt: skip
_ANY_NUMBER = (
    f"[0-9](?:[-.+/()_{_GAP}[0-9]){{5}}", r"[0-9]\.[0-9]{1,3}\.[0-9]", "::", ":[0-9A-Fa-f]{1,4}:[0-9A-Fa-f]",
    "-[0-9A-Fa-f]{2}-", r"\.[0-9A-Fa-f]{4}\.", "[A-Za-z][0-9][0-9A-Za-z]",
)  # fmt: skip
"""One of these is in every text that passes a gate of `_NUMBERS`. Those begin with letters, and joined with others
they cost RE2 three times as much."""
_FAMILIES: tuple[tuple[tuple[str, ...], Patterns], ...] = (
    ((), _WORDY),
    (_ANY_NUMBER, _NUMBERS),
    (addresses.WORDS_GATE, {"address": addresses.GATE}),
)
"""Patterns in every text that passes a gate of these types (without any: those gates joined), and the gates."""
_ANNOUNCED: tuple[tuple[RedactionType, ...], ...] = (
    ("birth_date", "passport", "driving_licence"), ("account", "secret"), ("address", "username"),
)  # fmt: skip
"""Types of `announced.GATES` that are tried as one pattern. After a cue each of them waits for a digit, so the more
cues, the more states: all in one, or joined with the families, they cost RE2 five times as much on texts of 100 words.
"""
_NOT_SHOWN = rf"{ENTITY}|[0-9A-Z)] {{2,3}}[0-9A-Z(+]"
"""What the finders read as something else (`separators.py`): any type may be found there."""
_ALL_BUT_NAMES = frozenset(get_args(RedactionType)) - {"name"}
_OTHER_SCRIPTS: dict[str, frozenset[RedactionType]] = {
    f"[{INVISIBLE}{UNUSUAL_SPACES}]": _ALL_BUT_NAMES,
    f"{OTHER_DIGIT}|{OTHER_GAP}": frozenset({"iban", "ip", "national_id", "card", "phone", "account", "secret"}),
    "|".join(PASSWORD_WORDS): frozenset({"secret"}),
}
"""Pattern -> types; only for texts with characters that are not ASCII."""
NAME_GATE = (
    r"(?i:dear|hi|hello|hey|regards|sincerely|cheers|thanks|thank you|yours|name is|name:|greetings|signed"
    r"|gr(?:ü|ue|u)(?:ß|ss)e?n?|mr|mrs|ms|dr|miss|i am|i'm|this is)[ \t\r\n,.!:-]{1,6}[A-ZÀ-ÖØ-Þ]"
)
"""An English greeting, signature or introduction, and a capital letter; means the same in RE2 and in Python."""


class _Gate(NamedTuple):
    """A text that matches the pattern gets the bits, and the gates inside are tried on it."""

    pattern: str
    bits: int
    inner: tuple[_Gate, ...] = ()


class _Gates(NamedTuple):
    for_all: tuple[_Gate, ...]
    for_others: tuple[_Gate, ...]
    """Only for texts with characters that are not ASCII."""


def bits_of(texts: pa.Array, step: RedactStep) -> NDArray[np.int32]:
    """Compute for each text which types it may hold, each text by itself: bit n is for `step.types[n]`."""
    bits = np.zeros(len(texts), np.int32)
    gates = _gates(step)
    for gate in gates.for_all:
        _set_bits(bits, np.arange(len(texts)), texts, gate)
    others = pc.indices_nonzero(pc.invert(pc.string_is_ascii(texts)))
    for gate in gates.for_others if len(others) else ():
        _set_bits(bits, others.to_numpy(), texts.take(others), gate)
    if step.names is not None and step.names.mode == "all":
        bits |= _bits_for(step, "name")
    return bits


def ticket_bits(tickets: pa.Table, step: RedactStep) -> NDArray[np.int32]:
    """Compute which types each text of each ticket may hold, (tickets, texts of `TEXTS`).

    Names depend on the whole ticket, so their bit is set for all texts or for none.
    """
    columns = [tickets.column(name).combine_chunks() for name in TEXTS]
    bits = np.stack([*(bits_of(column, step) for column in columns[:-1]), _message_bits(columns[-1], step)], axis=1)
    name = _bits_for(step, "name")
    bits[(bits & name).any(axis=1)] |= name
    return bits


def _message_bits(messages: pa.Array, step: RedactStep) -> NDArray[np.int32]:
    """As `bits_of`, for texts in JSON: where it escapes line breaks and quotes, spaces are tried too.

    A row with any other escape passes. Patterns of order numbers may use ^ or $, so for them every row passes.
    """
    bits = bits_of(messages, step)
    escaped = pc.indices_nonzero(pc.match_substring(messages, "\\"))
    some = messages.take(escaped)
    spaced = bits_of(pc.replace_substring_regex(some, pattern=r'\\[nrtbf"]', replacement=" "), step)
    any_other = pc.match_substring_regex(some, r'\\[^nrtbf"]').to_numpy(zero_copy_only=False)
    bits[escaped.to_numpy()] |= np.where(any_other, _bits_for(step, *step.types), spaced)
    bits[messages.is_valid().to_numpy(zero_copy_only=False)] |= _bits_for(step, "order_number")
    return bits


def _set_bits(bits: NDArray[np.int32], rows: NDArray[np.int64], texts: pa.Array, gate: _Gate) -> None:
    """Add the bits of the gate, and of those inside it, for these texts, which are in these rows of `bits`."""
    if texts.null_count == len(texts):
        return
    found = pc.indices_nonzero(pc.match_substring_regex(texts, gate.pattern))
    rows = rows[found.to_numpy()]
    bits[rows] |= gate.bits
    some = texts.take(found) if gate.inner else texts
    for inner in gate.inner:
        _set_bits(bits, rows, some, inner)


@cache
def _gates(step: RedactStep) -> _Gates:
    not_shown = _Gate(_NOT_SHOWN, _bits_for(step, *_ALL_BUT_NAMES))
    # Few texts pass the joined patterns; only those are tried on their parts.
    parts = [*filter(None, (_family(any_of, gates, step) for any_of, gates in _FAMILIES)), not_shown]
    gates = [_Gate("|".join(part.pattern for part in parts), 0, tuple(parts))]
    groups = ({type_: announced.GATES[type_] for type_ in types} for types in _ANNOUNCED)
    gates += filter(None, (_family((), group, step) for group in groups))
    if "order_number" in step.types and (orders := order_numbers(step.order_numbers)) is not None:
        gates.append(_Gate(orders.pattern, _bits_for(step, "order_number")))
    if step.names is not None and step.names.mode in {"gate", "rules"}:
        gates.append(_Gate("|".join((NAME_GATE, *name_rules.GATE)), _bits_for(step, "name")))
    others = tuple(_Gate(pattern, _bits_for(step, *types)) for pattern, types in _OTHER_SCRIPTS.items())
    return _Gates(tuple(gates), others)


def _family(any_of: tuple[str, ...], gates: Patterns, step: RedactStep) -> _Gate | None:
    wanted = {type_: patterns for type_, patterns in gates.items() if type_ in step.types}
    each = tuple(_Gate("|".join(patterns), _bits_for(step, type_)) for type_, patterns in wanted.items())
    return _Gate("|".join(any_of) or "|".join(gate.pattern for gate in each), 0, each) if each else None


def _bits_for(step: RedactStep, *types: RedactionType) -> int:
    return sum(1 << place for place, type_ in enumerate(step.types) if type_ in types)
