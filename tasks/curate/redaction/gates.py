"""Select in SQL the tickets that may contain personal data: one cheap RE2 pattern per type.

A gate may pass a text in which nothing is found, and never stops one in which something would be found.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, get_args

from schemas.curation_steps import RedactionType, RedactStep
from tasks.curate.redaction import addresses, announced, name_rules
from tasks.curate.redaction.credentials import PASSWORDS
from tasks.curate.redaction.numbers import IBAN_COUNTRIES
from tasks.curate.redaction.scripts import OTHER_DIGIT, OTHER_GAP, PASSWORD_WORDS
from tasks.curate.redaction.separators import ENTITY, INVISIBLE, UNUSUAL_SPACES, WIDEST_GAP
from tasks.warehouse import quote_text

if TYPE_CHECKING:
    import pyarrow as pa

# \s, \w and \d cover Unicode in Python and only ASCII in RE2, so patterns here avoid them, or use \W where matching
# more is harmless. Ten patterns joined by | cost RE2 as much as one, so all patterns are joined.
_GAP = " \u00a0\\t\\r\\n"
_MANY = f"{{0,{WIDEST_GAP}}}"
_GATES: dict[str, tuple[str, ...]] = {
    "email": ("[@＠]", r"[(\[](?s:.?)(?i:at)(?s:.?)[)\]]"),
    "url": ("://", r"(?i:www)\."),
    "secret": (
        "-----BEGIN ", "AKIA", "ASIA", "eyJ", "[spr]k[-_]", "whsec_", "gh[pousr]_", "github_pat_", "glpat-",
        "xox[a-z]-", "xapp-", "AIza", r"ya29\.", r"SG\.", "npm_", "hf_", "(?i:bearer)[^A-Za-z0-9]",
        f"(?i:{PASSWORDS}|passcode|pass|clave|token|secret|key)[^A-Za-z0-9]*(?:[:=]|(?i:is|lautet|est?|wa[sr]))",
        f"(?i:{PASSWORDS})[^A-Za-z0-9](?i:for|of|to|on|für|pour|para)[^A-Za-z0-9]",
        # Any sign of a password that follows without ":".
        f"(?i:{PASSWORDS})[^A-Za-z0-9]{{1,3}}(?:(?i:from|to|auf|in)[^A-Za-z0-9]{{1,2}})?[^ ]*[0-9!@#$%^*+=]",
        "(?i:credentials|zugangsdaten|identifiants|credenciales|login data)[^A-Za-z0-9]*[:=]",
        "(?i:user(?:name)?)[^A-Za-z0-9]?/[^A-Za-z0-9]?(?i:pass)", "(?i:authorization)[^A-Za-z0-9]*(?i:basic)",
        "(?i:mysql).*-p",
        "(?i:pin|otp|passcode|cvv2?|cvc2?)[^A-Za-z0-9]",
        "://[^ ]+@",
    ),
    "iban": (f"(?i:{'|'.join(IBAN_COUNTRIES)})[0-9]{{2}}(?:[-{_GAP}]{_MANY}[A-Za-z0-9]){{11}}",),
    "ip": (
        r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]", "::[0-9A-Fa-f]", "[0-9A-Fa-f]::", "(?:[0-9A-Fa-f]{1,4}:){7}",
    ),
    "national_id": (
        f"[0-9](?:[-.+{_GAP}]{_MANY}[0-9]){{7}}", "[A-Za-z]{2} {0,3}(?:[0-9]{2} {0,3}){3}[A-Da-d]",
        "[XYZxyz][ -]{0,3}[0-9]{7}",
        "[A-Za-z]{6}[0-9LMNP-Vlmnp-v]{2}[A-Za-z][0-9LMNP-Vlmnp-v]{2}[A-Za-z][0-9LMNP-Vlmnp-v]{3}[A-Za-z]",
    ),
    "card": (f"[0-9](?:[-.{_GAP}]{_MANY}[0-9]){{11}}",),
    "phone": (f"[0-9](?:[-./(){_GAP}]{_MANY}[0-9]){{6}}",),
    "mac": ("(?:[0-9A-Fa-f]{2}[:-]){3}", "(?:[0-9A-Fa-f]{4}[.]){2}[0-9A-Fa-f]{4}"),
    "address": addresses.GATE,
    **{kind: announced.GATES[kind] for kind in announced.GATES if kind != "secret"},
}  # fmt: skip
_GATES["secret"] += announced.GATES["secret"]
_SLOTS = dict.fromkeys(("birth_date", "passport", "driving_licence", "account"), "announced")
"""Types that share a bit, for more types than there are bits; every other type has its own."""
_OTHER_GATES: dict[str, frozenset[RedactionType]] = {
    f"{OTHER_DIGIT}|{OTHER_GAP}": frozenset({"iban", "ip", "national_id", "card", "phone", "account", "secret"}),
    f"[{INVISIBLE}{UNUSUAL_SPACES}]": frozenset(get_args(RedactionType)) - {"name"},
    "|".join(PASSWORD_WORDS): frozenset({"secret"}),
}
"""Pattern -> types; only for texts with characters that are not ASCII."""
TEXTS = ("subject", "body", "reply", "messages")
TEXT_BITS = 15
"""Bits of one text: more than there are slots, and four times as many still fit a BIGINT."""
NAME_GATE = (
    r"(?i:dear|hi|hello|hey|regards|sincerely|cheers|thanks|thank you|yours|name is|name:|greetings|signed"
    r"|gr(?:ü|ue|u)(?:ß|ss)e?n?|mr|mrs|ms|dr|miss|i am|i'm|this is)[ \t\r\n,.!:-]{1,6}[A-ZÀ-ÖØ-Þ]"
)
"""An English greeting, signature or introduction, and a capital letter; means the same in RE2 and in Python."""


def gate_bits(step: RedactStep, *, orders: str | None) -> str:
    """Build an SQL expression over ticket columns: which types each text of a ticket may hold, 0 for none.

    Bit `TEXT_BITS * text + slot` is for a text of `TEXTS` and a slot of the step (`slots_of`), by their places. Names
    depend on the whole ticket, so theirs is set for all texts or for none.

    Args:
        step: Its types and how names are found.
        orders: The RE2 pattern of the order numbers if they are replaced.
    """
    alone = [condition for type_ in step.types if (condition := _alone(type_, step, orders, _ALL_TEXT))]
    together = [pattern for type_ in step.types for pattern in _patterns(type_, step)]
    any_type = " OR ".join([*([_matches(_ALL_TEXT, together)] if together else []), *alone]) or "FALSE"
    bits = [_text_bits(place, name, step, orders) for place, name in enumerate(TEXTS)]
    if "name" in step.types and (of_ticket := _condition("name", step, orders, _ALL_TEXT)) != "FALSE":
        shifts = (TEXT_BITS * place + list(slots_of(step)).index("name") for place in range(len(TEXTS)))
        bits.append(f"CASE WHEN {of_ticket} THEN {sum(1 << shift for shift in shifts)} ELSE 0 END")
    # Only rows that match the one pattern of all types are tested text by text.
    return f"CASE WHEN {_ESCAPED} OR {any_type} THEN {' | '.join(bits)} ELSE 0 END"


def other_bits(table: pa.Table, step: RedactStep) -> pa.Array:
    """Compute the same bits, per row, for other digits, unusual spaces and words of other scripts.

    Not a part of the SQL: finding the texts that are not ASCII costs Arrow almost nothing, and DuckDB a fifth of the
    gate.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    bits = np.zeros(table.num_rows, np.int64)
    slots = list(slots_of(step).values())
    for place, name in enumerate(TEXTS):
        texts = table.column(name).combine_chunks()
        others = pc.indices_nonzero(pc.invert(pc.fill_null(pc.string_is_ascii(texts), True)))
        if not len(others):
            continue
        some = texts.take(others)
        for pattern, types in _OTHER_GATES.items():
            mask = sum(
                1 << (TEXT_BITS * place + number) for number, slot in enumerate(slots) if not types.isdisjoint(slot)
            )
            found = others.filter(pc.match_substring_regex(some, pattern)).to_numpy()
            bits[found] |= mask
    return pa.array(bits)


def may_hold(texts: pa.Array, step: RedactStep) -> pa.Array:
    """Whether each text may hold a value of the step's types, each text by itself."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if step.order_numbers or (step.names is not None and step.names.mode == "all"):
        return pc.is_valid(texts)
    patterns = [pattern for type_ in step.types for pattern in _patterns(type_, step)]
    patterns += [pattern for pattern, types in _OTHER_GATES.items() if not types.isdisjoint(step.types)]
    if not patterns:
        return pa.repeat(False, len(texts))
    return pc.fill_null(pc.match_substring_regex(texts, "|".join(patterns)), False)


def slots_of(step: RedactStep) -> dict[str, tuple[RedactionType, ...]]:
    """The bits of a text, lowest first, each with the types of the step that it speaks of."""
    slots: dict[str, tuple[RedactionType, ...]] = {}
    for type_ in step.types:
        slot = _SLOTS.get(type_, type_)
        slots[slot] = (*slots.get(slot, ()), type_)
    return slots


def _text_bits(place: int, name: str, step: RedactStep, orders: str | None) -> str:
    """The bits of one text: it is tested type by type only if the one pattern of all types matches."""
    text = _MESSAGES if name == "messages" else name
    types = [
        (1 << (TEXT_BITS * place + number), type_)
        for number, types_ in enumerate(slots_of(step).values())
        for type_ in types_
        if type_ != "name"
    ]
    alone = [condition for _, type_ in types if (condition := _alone(type_, step, orders, name))]
    together = [pattern for _, type_ in types for pattern in _patterns(type_, step)]
    any_type = " OR ".join([*([_matches(text, together)] if together else []), *alone]) or "FALSE"
    each = (f"CASE WHEN {_condition(type_, step, orders, text)} THEN {bit} ELSE 0 END" for bit, type_ in types)
    bits = f"CASE WHEN {any_type} THEN {' | '.join(each) or 0} ELSE 0 END"
    if name != "messages":
        return f"({bits})"
    return f"(CASE WHEN {_ESCAPED} THEN {sum({bit for bit, _ in types})} ELSE {bits} END)"


def _patterns(type_: RedactionType, step: RedactStep) -> tuple[str, ...]:
    if type_ == "name" and step.names is not None and step.names.mode in {"gate", "rules"}:
        return (NAME_GATE, *name_rules.GATE)
    return (*_GATES[type_], ENTITY) if type_ in _GATES else ()


def _condition(type_: RedactionType, step: RedactStep, orders: str | None, text: str) -> str:
    """Whether the type may be found in the text (an SQL expression)."""
    if patterns := _patterns(type_, step):
        return _matches(text, patterns)
    return _alone(type_, step, orders, text) or "FALSE"


def _alone(type_: RedactionType, step: RedactStep, orders: str | None, text: str) -> str:
    """The condition of a type that has no pattern in `_GATES`; '' for none.

    A pattern of order numbers may use ^ or $, so each text is tested by itself; all messages pass, because they are
    not parsed here.
    """
    if type_ == "order_number" and orders is not None:
        texts = TEXTS if text == _ALL_TEXT else ("messages",) if text == _MESSAGES else (text,)
        return " OR ".join(
            f"({name} IS NOT NULL)"
            if name == "messages"
            else f"coalesce(regexp_matches({name}, {quote_text(orders)}), FALSE)"
            for name in texts
        )
    return "TRUE" if type_ == "name" and step.names is not None and step.names.mode == "all" else ""


def _matches(text: str, patterns: Collection[str]) -> str:
    return f"coalesce(regexp_matches({text}, {quote_text('|'.join(patterns))}), FALSE)"


# JSON escapes characters: escaped line breaks and quotes become spaces here, in addition to the raw text (a message
# that is not JSON is searched as it is); rows with any other escape always pass.
_UNESCAPED = r"""CASE WHEN contains(messages, '\') THEN regexp_replace(messages, '\\[nrtbf"]', ' ', 'g') END"""
_MESSAGES = f"concat_ws(chr(10), messages, {_UNESCAPED})"
_ALL_TEXT = f"concat_ws(chr(10), subject, body, reply, {_MESSAGES})"
_ESCAPED = r"""coalesce(contains(messages, '\') AND regexp_matches(messages, '\\[^nrtbf"]'), FALSE)"""
