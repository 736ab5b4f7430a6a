"""The words beside a number that say what it is: "call", "order", "SSN". The nearest one before the number counts.

It knows nothing of what numbers look like. Called by the finders of `tasks/curate/redaction`.
"""

from __future__ import annotations

import re
from typing import Literal

Said = Literal["phone", "reference", "national", "us", "gb", "de", "fr", "es", "it", "nl", "br", "in", "pl", "se"]

_REACH = 64
"""Characters before a number in which a word can speak for it."""
_SAYS_WHAT = re.compile(
    r"""(?ix)(?<![^\W_])(?:
    (?P<national>national[ ]id|national[ ]identity|identity[ ](?:number|card|no)|id[ ]card|tax[ ]?(?:payer)?[ ]?(?:id|no|number)
        |personal[ ](?:id|identity|identification)|citizen[ ](?:id|number)|tin)
  | (?P<us>ssn|itin|social[ ]security|social[ ]sec)
  | (?P<gb>nino|national[ ]insurance|ni[ ](?:number|no))
  | (?P<de>steuer-?[ ]?id|steuerid|idnr|identifikationsnummer|steueridentifikationsnummer|steuernummer)
  | (?P<fr>nir|num[ée]ro[ ]de[ ]s[ée]cu(?:rit[ée][ ]sociale)?|s[ée]curit[ée][ ]sociale|n°[ ]s[ée]cu)
  | (?P<es>dni|nie|nif|documento[ ]nacional)
  | (?P<it>codice[ ]fiscale|cod[.]?[ ]fisc[.]?)
  | (?P<nl>bsn|burgerservicenummer|sofinummer)
  | (?P<br>cpf)
  | (?P<in>aadhaar|aadhar|uidai)
  | (?P<pl>pesel)
  | (?P<se>personnummer|personnr|samordningsnummer)
  | (?P<phone>phone|mobile|cell|cellphone|tel|telephone|fax|whatsapp|sms|text|call|calling|answers|answering|reach|ring
        |dial|contact|registered|telefon|handy|mobil|anrufen|rufnummer|portable|téléphone|teléfono|móvil|telefono)
  | (?P<reference>orders?|invoice|ticket|case|ref|reference|tracking|shipment|parcel|package|serial|sku|part|article
        |item|rma|booking|account|contract|customer|purchase|transaction|bestellung|bestellnummer|auftrag|rechnung
        |kundennummer|commande|facture|pedido|factura|ean|isbn|imei|id)
    )(?![^\W_])"""
)
_CARD = re.compile(r"(?i)(?<![^\W_])(?:cards?|cc|credit|debit|visa|master ?card|amex|maestro|karte|carte|tarjeta)(?![^\W_])")
_NEAR = re.compile(r"\W*(?:\w+\W+){0,4}")
_PHONE_AFTER = re.compile(
    r"(?i)\W*(?:(?:is|was|my|our|the|work|home)\W+){0,3}(?:phone|mobile|cell|telephone|fax|office)\b"
)
_ID_AFTER = re.compile(r"(?i)\W*(?:is|was|=)\W+(?:(?:my|his|her|our|the|their)\W+)?")


def said_before(text: str, start: int) -> Said | None:
    """What the nearest telling word, up to four words before `start`, says that a number there is.

    >>> said_before("call me at 9472 7916", 11), said_before("call about order 9472 7916", 17)
    ('phone', 'reference')
    """
    before = text[max(0, start - _REACH) : start]
    last = None
    for last in _SAYS_WHAT.finditer(before):
        pass
    return last.lastgroup if last is not None and _NEAR.fullmatch(before, last.end()) else None  # type: ignore[return-value]


def says_card(text: str, start: int) -> bool:
    """Whether a word for a payment card stands up to four words before `start`."""
    before = text[max(0, start - _REACH) : start]
    return any(_NEAR.fullmatch(before, word.end()) for word in _CARD.finditer(before))


def said_after(text: str, end: int) -> Said | None:
    """What the words right after `end` say: "9472 7916 is my mobile", "460-89-9847 is my SSN".

    >>> said_after("460899847 is my SSN", 9)
    'us'
    """
    after = text[end : end + 40]
    if _PHONE_AFTER.match(after):
        return "phone"
    gap = _ID_AFTER.match(after)
    told = _SAYS_WHAT.match(after, gap.end()) if gap is not None else None
    return told.lastgroup if told is not None else None  # type: ignore[return-value]
