"""Fake personal data for ticket texts: every value has the form of a real one and belongs to nobody.

Addresses at example.* and *.example (RFC 2606, RFC 6761), phone numbers of the ranges kept for fiction, card numbers
for tests, IBANs with valid check digits at banks that do not exist (ISO 13616), addresses of documentation networks
(RFC 5737, RFC 3849). It knows nothing of redaction. Used by `writer.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tasks.curate.helpdesk.grammar import Dice

_CARDS = ("4111 1111 1111 1111", "5555 5555 5555 4444", "4242424242424242", "3782 822463 10005")
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"

SENTENCES: Final[Mapping[str, tuple[str, ...]]] = {
    "email": ("You can [write to|reach me at] {email}.", "My address is {email}.", "Please answer to {email}."),
    "phone": (
        "[Call|Ring] me on {phone}.",
        "My [phone|mobile] number is {phone}.",
        "I am on {phone} [in the evening|].",
    ),
    "card": ("My card is {card}.", "The card [in question|used] was {card}."),
    "iban": ("My IBAN is {iban}.", "[The account is|My account]: {iban}."),
    "ip": ("[The router|My router] shows {ip}.", "Its address in the network is {ip}."),
    "url": ("[The link|Your link] was {url}.", "I [used|opened] {url}."),
    "secret": ("My API key: {key}.", "[For tests|If you look], the password is {password}."),
}
_EVERYWHERE = ("email", "phone", "email", "phone")
KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "billing": (*_EVERYWHERE, "card", "iban", "iban"),
    "delivery": (*_EVERYWHERE, "url"),
    "returns": (*_EVERYWHERE, "iban"),
    "account": (*_EVERYWHERE, "url", "secret", "ip"),
    "technical": (*_EVERYWHERE, "ip", "ip", "secret"),
    "product-info": _EVERYWHERE,
    "cancellation": (*_EVERYWHERE, "iban", "card"),
    "feedback": _EVERYWHERE,
}
"""What customers of a category tend to tell."""


def make_up(kind: str, first_name: str, dice: Dice) -> dict[str, str]:
    """Slots for a sentence of `SENTENCES[kind]`."""
    match kind:
        case "email":
            domain = dice.pick(("example.org", "example.com", "example.net", "mail.example"))
            return {"email": f"{first_name.lower()}.{dice.pick('abcdefghklmnprstw')}{dice.below(90) + 10}@{domain}"}
        case "phone":
            last = dice.below(100)
            forms = (f"+1 202 555 01{last:02d}", f"(202) 555-01{last:02d}", f"+44 20 7946 0{100 + last}")
            return {"phone": dice.pick(forms)}
        case "card":
            return {"card": dice.pick(_CARDS)}
        case "iban":
            return {"iban": _iban(dice)}
        case "ip":
            network = dice.pick(("192.0.2.", "198.51.100.", "203.0.113.", "2001:db8::"))
            return {"ip": f"{network}{1 + dice.below(250)}"}
        case "url":
            page = dice.pick(("account.northbeam.example/reset?token=", "track.northbeam.example/parcel?key="))
            return {"url": f"https://{page}{_letters(dice, 16)}"}
        case _:
            return {"key": f"nb_live_{_letters(dice, 24)}", "password": f"{first_name}-{1000 + dice.below(9000)}"}


def _letters(dice: Dice, n: int) -> str:
    return "".join(dice.pick(_ALPHABET) for _ in range(n))


def _digits(dice: Dice, n: int) -> str:
    return "".join(dice.pick("0123456789") for _ in range(n))


def _iban(dice: Dice) -> str:
    country, account = dice.pick(
        (
            ("DE", f"00000000{_digits(dice, 10)}"),
            ("GB", f"NBTS000000{_digits(dice, 8)}"),
            ("NL", f"NBTS{_digits(dice, 10)}"),
        )
    )
    iban = country + check_digits(country, account) + account
    return " ".join(iban[start : start + 4] for start in range(0, len(iban), 4)) if dice.chance(0.7) else iban


def check_digits(country: str, account: str) -> str:
    """The two digits that make an IBAN's remainder modulo 97 one. Source: ISO 13616, ISO 7064 MOD 97-10.

    >>> check_digits("GB", "WEST12345698765432")
    '82'
    """
    number = "".join(str(int(letter, 36)) for letter in f"{account}{country}00")
    return f"{98 - int(number) % 97:02d}"
