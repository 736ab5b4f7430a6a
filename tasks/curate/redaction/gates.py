"""Which tickets can hold personal data at all: one RE2 pattern per type, necessary and cheap, for all rows in SQL.

A gate may let a text through in which nothing is found; it never holds one back in which something would be. It knows
nothing of how values are found. Called by `tasks/curate/redact.py`.
"""

from __future__ import annotations

from collections.abc import Collection

from schemas.curation_steps import RedactionType, RedactStep
from tasks.curate.redaction.number_kinds import IBAN_COUNTRIES
from tasks.warehouse import quote_text

# \s, \w and \d of Python know all of Unicode, those of RE2 only ASCII: neither stands here. RE2's matching costs the
# same for one pattern as for ten joined by |, so every type has one pattern and all of them are one.
_GATES: dict[str, tuple[str, ...]] = {
    "email": ("[@＠]", r"[(\[](?s:.?)(?i:at)(?s:.?)[)\]]"),
    "url": ("://", r"(?i:www)\."),
    "secret": (
        "-----BEGIN ", "AKIA", "ASIA", "eyJ", "[spr]k[-_]", "whsec_", "gh[pousr]_", "github_pat_", "glpat-",
        "xox[a-z]-", "xapp-", "AIza", r"ya29\.", r"SG\.", "npm_", "hf_", "(?i:bearer)[^A-Za-z0-9]",
        r"(?i:password|passwd|passwort|passcode|passphrase|pwd|pw|token|secret|key)[^A-Za-z0-9]*(?:[:=]|(?i:is))",
        "(?i:pin|otp|passcode|cvv2?|cvc2?)[^A-Za-z0-9]",
        "://[^ ]+@",
    ),
    "iban": (f"(?i:{'|'.join(IBAN_COUNTRIES)})[0-9]{{2}}[ -]?[A-Za-z0-9](?:[ -]?[A-Za-z0-9]){{10}}",),
    "ip": (
        r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]", "::[0-9A-Fa-f]", "[0-9A-Fa-f]::", "(?:[0-9A-Fa-f]{1,4}:){7}",
    ),
    "national_id": (
        "[0-9](?:[ .+-]?[0-9]){7}", "[A-Za-z]{2} ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-Da-d]", "[XYZxyz][ -]?[0-9]{7}",
        "[A-Za-z]{6}[0-9LMNP-Vlmnp-v]{2}[A-Za-z][0-9LMNP-Vlmnp-v]{2}[A-Za-z][0-9LMNP-Vlmnp-v]{3}[A-Za-z]",
    ),
    "card": ("[0-9](?:[ .-]?[0-9]){11}",),
    "phone": ("[0-9](?:[ .\\-/()\u00a0]{0,3}[0-9]){6}",),
}  # fmt: skip
NAME_GATE = (
    r"(?i:dear|hi|hello|hey|regards|sincerely|cheers|thanks|thank you|yours|name is|name:|greetings|signed"
    r"|gr(?:ü|ue|u)(?:ß|ss)e?n?|mr|mrs|ms|dr|miss|i am|i'm|this is)[ \t\r\n,.!:-]{1,6}[A-ZÀ-ÖØ-Þ]"
)
"""A greeting, a signature or an introduction, and a capital letter. For RE2 and for Python in one meaning."""


def gate_bits(step: RedactStep, *, orders: str | None) -> str:
    """An SQL expression over ticket columns: bit i is set where type i of the step may be found, 0 where none may.

    Args:
        step: Its types and how names are found.
        orders: The RE2 pattern of the order numbers when they are replaced.
    """
    conditions = {type_: _condition(type_, step, orders) for type_ in step.types}
    together = [pattern for type_ in step.types for pattern in _patterns(type_, step)]
    alone = [condition for type_, condition in conditions.items() if not _patterns(type_, step)]
    any_type = " OR ".join([*([_matches(together)] if together else []), *alone]) or "FALSE"
    all_bits = (1 << len(step.types)) - 1
    bits = " | ".join(
        f"CASE WHEN {condition} THEN {1 << place} ELSE 0 END" for place, condition in enumerate(conditions.values())
    )
    # The first branch that holds decides: only rows that pass the one pattern of all types are asked type by type.
    return f"CASE WHEN {_ESCAPED} THEN {all_bits} WHEN {any_type} THEN {bits or 0} ELSE 0 END"


def _patterns(type_: RedactionType, step: RedactStep) -> tuple[str, ...]:
    if type_ == "name" and step.names is not None and step.names.mode == "gate":
        return (NAME_GATE,)
    return _GATES.get(type_, ())


def _condition(type_: RedactionType, step: RedactStep, orders: str | None) -> str:
    if patterns := _patterns(type_, step):
        return _matches(patterns)
    if type_ == "order_number" and orders is not None:
        # A pattern with ^ or $ speaks of one text, so it is tried on each; those inside messages are not unpacked here.
        tried = (
            f"coalesce(regexp_matches({name}, {quote_text(orders)}), FALSE)" for name in ("subject", "body", "reply")
        )
        return f"({' OR '.join(tried)} OR messages IS NOT NULL)"
    return "TRUE" if type_ == "name" and step.names is not None and step.names.mode == "all" else "FALSE"


def _matches(patterns: Collection[str]) -> str:
    return f"regexp_matches({_ALL_TEXT}, {quote_text('|'.join(patterns))})"


# JSON hides characters behind escapes: line breaks and quotes become spaces here (a message that is no JSON is searched
# as it stands, so that form is kept beside); rows with any other escape always pass.
_UNESCAPED = r"""CASE WHEN contains(messages, '\') THEN regexp_replace(messages, '\\[nrtbf"]', ' ', 'g') END"""
_ALL_TEXT = f"concat_ws(chr(10), subject, body, reply, messages, {_UNESCAPED})"
_ESCAPED = r"""coalesce(contains(messages, '\') AND regexp_matches(messages, '\\[^nrtbf"]'), FALSE)"""
