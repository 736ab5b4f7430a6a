"""Select in SQL the tickets that may contain personal data: one cheap RE2 pattern per type.

A gate may pass a text in which nothing is found, and never stops one in which something would be found.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import reduce
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
# more is harmless. Ten patterns joined by | cost RE2 as much as one, so patterns are joined; but in one with all of
# them it runs out of states and takes forty times as long, so those with many words are apart (`_GROUPS`).
_GAP = " \u00a0\\t\\r\\n"
_MANY = f"{{0,{WIDEST_GAP}}}"
_GATES: dict[str, tuple[str, ...]] = {
    "email": ("[@＠]", r"[(\[](?s:.?)(?i:at)(?s:.?)[)\]]"),
    "url": ("://", r"(?i:www)\."),
    "secret": (
        "-----BEGIN ", "AKIA", "ASIA", "eyJ", "[spr]k[-_]", "whsec_", "gh[pousr]_", "github_pat_", "glpat-",
        "xox[a-z]-", "xapp-", "AIza", r"ya29\.", r"SG\.", "npm_", "hf_", "(?i:bearer)[^A-Za-z0-9]",
        f"(?i:{PASSWORDS}|passcode|pass|clave|token|secret|key)[^A-Za-z0-9]*(?:(?i:ist?|lautet|est)?[^A-Za-z0-9]*[:=]"
        "|[^A-Za-z0-9](?i:ist?|lautet|est?|wa[sr])[^A-Za-z])",
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
_WIDE_GAP = r"[0-9A-Z)] {2,3}[0-9A-Z(+]"
NAME_GATE = (
    r"(?i:dear|hi|hello|hey|regards|sincerely|cheers|thanks|thank you|yours|name is|name:|greetings|signed"
    r"|gr(?:ü|ue|u)(?:ß|ss)e?n?|mr|mrs|ms|dr|miss|i am|i'm|this is)[ \t\r\n,.!:-]{1,6}[A-ZÀ-ÖØ-Þ]"
)
"""An English greeting, signature or introduction, and a capital letter; means the same in RE2 and in Python."""
_GROUPS = {pattern: 1 for patterns in announced.GATES.values() for pattern in patterns}
_GROUPS |= dict.fromkeys(addresses.GATE, 2) | dict.fromkeys((NAME_GATE, *name_rules.GATE), 3)
"""Patterns that are joined only within their group, not with the others (group 0). Few tickets match them, so they are
tested once per ticket, and their bits set for all of its texts."""


def gate_bits(step: RedactStep, *, orders: str | None) -> str:
    """Build an SQL expression over ticket columns: which types each text of a ticket may hold, 0 for none.

    Bit `TEXT_BITS * text + slot` is for a text of `TEXTS` and a slot of the step (`slots_of`), by their places. Names
    depend on the whole ticket, so theirs is set for all texts or for none.

    Args:
        step: Its types and how names are found.
        orders: The RE2 pattern of the order numbers if they are replaced.
    """
    slots = list(slots_of(step).values())
    alone = [condition for type_ in step.types if (condition := _alone(type_, orders, _ALL_TEXT))]
    in_texts = [_matches(_ALL_TEXT, _patterns(step.types, step, group=0)), *alone]
    texts = [_text_bits(place, name, step, orders) for place, name in enumerate(TEXTS)]
    # Only rows that match the one pattern of all types are tested text by text.
    bits = [f"CASE WHEN {' OR '.join([_ESCAPED, *in_texts])} THEN {' | '.join(texts)} ELSE 0 END"]
    for group in sorted(set(_GROUPS.values())):
        in_group = [number for number, types in enumerate(slots) if _patterns(types, step, group=group)]
        if in_group:
            condition = _matches(_ALL_TEXT, _patterns(step.types, step, group=group))
            bits.append(f"CASE WHEN {condition} THEN {_mask(in_group)} ELSE 0 END")
    if "name" in step.types and step.names is not None and step.names.mode == "all":
        bits.append(f"{_mask([slots.index(('name',))])}")
    return " | ".join(f"({each})" for each in bits)


def _mask(slots: Collection[int]) -> int:
    """The bits of these slots in all texts."""
    return sum(1 << (TEXT_BITS * place + number) for place in range(len(TEXTS)) for number in slots)


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
    groups = [_patterns(step.types, step, group=group) for group in (0, *sorted(set(_GROUPS.values())))]
    groups.append([pattern for pattern, types in _OTHER_GATES.items() if not types.isdisjoint(step.types)])
    matches = [pc.match_substring_regex(texts, "|".join(patterns)) for patterns in groups if patterns]
    return pc.fill_null(reduce(pc.or_, matches, pa.repeat(pa.scalar(False), len(texts))), False)


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
    slots = [
        (1 << (TEXT_BITS * place + number), types)
        for number, types in enumerate(slots_of(step).values())
        if types != ("name",)
    ]
    conditions = [(bit, _condition(types, step, orders, text)) for bit, types in slots]
    any_type = _condition([type_ for _, types in slots for type_ in types], step, orders, text)
    each = (f"CASE WHEN {condition} THEN {bit} ELSE 0 END" for bit, condition in conditions if condition != "FALSE")
    bits = f"CASE WHEN {any_type} THEN {' | '.join(each) or 0} ELSE 0 END"
    if name != "messages":
        return f"({bits})"
    return f"(CASE WHEN {_ESCAPED} THEN {sum(bit for bit, _ in slots)} ELSE {bits} END)"


def _condition(types: Collection[RedactionType], step: RedactStep, orders: str | None, text: str) -> str:
    """Whether the text itself shows that one of the types may be found in it (an SQL expression)."""
    patterns = _patterns(types, step, group=0)
    alone = [condition for type_ in types if (condition := _alone(type_, orders, text))]
    return " OR ".join([*([_matches(text, patterns)] if patterns else []), *alone]) or "FALSE"


def _patterns(types: Collection[RedactionType], step: RedactStep, *, group: int | None = None) -> list[str]:
    """The patterns of these types, without repetition; None for those of all groups."""
    patterns = [pattern for type_ in types for pattern in (*_GATES.get(type_, ()), ENTITY) if type_ in _GATES]
    if "name" in types and step.names is not None and step.names.mode in {"gate", "rules"}:
        patterns += (NAME_GATE, *name_rules.GATE)
    return [pattern for pattern in dict.fromkeys(patterns) if group is None or _GROUPS.get(pattern, 0) == group]


def _alone(type_: RedactionType, orders: str | None, text: str) -> str:
    """The condition of order numbers; '' for other types.

    Their pattern may use ^ or $, so each text is tested by itself; all messages pass, because they are not parsed here.
    """
    if type_ != "order_number" or orders is None:
        return ""
    texts = TEXTS if text == _ALL_TEXT else ("messages",) if text == _MESSAGES else (text,)
    pattern = f"{orders}|{ENTITY}|{_WIDE_GAP}"
    return " OR ".join(
        f"({name} IS NOT NULL)"
        if name == "messages"
        else f"coalesce(regexp_matches({name}, {quote_text(pattern)}), FALSE)"
        for name in texts
    )


def _matches(text: str, patterns: Collection[str]) -> str:
    return f"coalesce(regexp_matches({text}, {quote_text('|'.join(patterns))}), FALSE)" if patterns else "FALSE"


# JSON escapes characters: escaped line breaks and quotes become spaces here, in addition to the raw text (a message
# that is not JSON is searched as it is); rows with any other escape always pass.
_UNESCAPED = r"""CASE WHEN contains(messages, '\') THEN regexp_replace(messages, '\\[nrtbf"]', ' ', 'g') END"""
_MESSAGES = f"concat_ws(chr(10), messages, {_UNESCAPED})"
_ALL_TEXT = f"concat_ws(chr(10), subject, body, reply, {_MESSAGES})"
_ESCAPED = r"""coalesce(contains(messages, '\') AND regexp_matches(messages, '\\[^nrtbf"]'), FALSE)"""
