"""Which tickets can hold personal data at all: one RE2 pattern per type, necessary and cheap, for all rows in SQL.

A gate may let a text through in which nothing is found; it never holds one back in which something would be. It knows
nothing of how values are found. Called by `tasks/curate/redact.py`.
"""

from __future__ import annotations

from schemas.curation_steps import RedactStep
from tasks.curate.redaction.number_kinds import IBAN_COUNTRIES

# \s, \w and \d of Python know all of Unicode, those of RE2 only ASCII: neither stands here. RE2's matching costs the
# same for one pattern as for ten joined by |, so every type has one pattern and all of them are one.
_GATES: dict[str, tuple[str, ...]] = {
    "email": ("[@＠]", r"[(\[](?s:.?)(?i:at)(?s:.?)[)\]]"),
    "url": ("://", r"(?i:www)\."),
    "secret": (
        "-----BEGIN ", "AKIA", "ASIA", "eyJ", "[spr]k[-_]", "whsec_", "gh[pousr]_", "github_pat_", "glpat-", "xox[a-z]-",
        "xapp-", "AIza", r"ya29\.", r"SG\.", "npm_", "hf_", "(?i:bearer)[^A-Za-z0-9]",
        r"(?i:password|passwd|passwort|passcode|passphrase|pwd|token|secret|key)[^A-Za-z0-9]*(?:[:=]|(?i:is))",
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
    r"(?i:dear|hi|hello|hey|regards|sincerely|cheers|thanks|thank you|yours|name is|name:|greetings|signed|gr(?:u|ü)ße"
    r"|mr|mrs|ms|dr|miss|i am|i'm|this is)[ \t\r\n,.!:-]{1,6}[A-ZÀ-ÖØ-Þ]"
)
"""A greeting, a signature or an introduction, and a capital letter. For RE2 and for Python in one meaning."""


def gate_condition(step: RedactStep, *, orders: str | None) -> str:
    """The SQL condition over ticket columns that is TRUE for every row in which the step may find something.

    Args:
        step: Its types and how names are found.
        orders: The RE2 pattern of the order numbers when they are replaced.
    """
    if "name" in step.types and step.names is not None and step.names.mode == "all":
        return "TRUE"
    patterns = [pattern for type_ in step.types for pattern in _GATES.get(type_, ())]
    if "name" in step.types and step.names is not None and step.names.mode == "gate":
        patterns.append(NAME_GATE)
    conditions = [f"regexp_matches({_ALL_TEXT}, {_text('|'.join(patterns))})", _ESCAPED] if patterns else []
    if orders is not None:
        # A pattern with ^ or $ speaks of one text, so it is tried on each; those inside messages are not unpacked here.
        conditions += [f"regexp_matches({name}, {_text(orders)})" for name in ("subject", "body", "reply")]
        conditions.append("messages IS NOT NULL")
    return " OR ".join(f"coalesce({condition}, FALSE)" for condition in conditions) or "FALSE"


# JSON hides characters behind escapes: line breaks and quotes become spaces here (a message that is no JSON is searched
# as it stands, so that form is kept beside); rows with any other escape always pass.
_UNESCAPED = r"""CASE WHEN contains(messages, '\') THEN regexp_replace(messages, '\\[nrtbf"]', ' ', 'g') END"""
_ALL_TEXT = f"concat_ws(chr(10), subject, body, reply, messages, {_UNESCAPED})"
_ESCAPED = r"regexp_matches(messages, '\\[^nrtbf\"]')"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
