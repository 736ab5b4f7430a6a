"""The words beside a number that say what it is: "call", "order", "SSN". The nearest one before the number counts.

It knows nothing of what numbers look like. Called by the finders of `tasks/curate/redaction`.
"""

from __future__ import annotations

import re
from typing import Literal

from tasks.curate.redaction.scripts import CARD, NATIONAL, PHONE, REFERENCE

_LONGEST_CUE = 32
"""Characters of a word of another script that became letters of `scripts.py`, or of several that touch."""
Said = Literal["phone", "reference", "national", "us", "gb", "de", "fr", "es", "it", "nl", "br", "in", "pl", "se"]

# Words and pairs of words, in lower case; what stands between two words does not count: `Steuer-ID` is "steuer id".
_CUES: dict[Said, str] = {
    "phone": """phone, mobile, cell, cellphone, tel, telephone, fax, whatsapp, sms, text, call, calling, answers,
        answering, reach, ring, dial, contact, registered, telefon, handy, mobil, anrufen, rufnummer, portable,
        téléphone, teléfono, móvil, telefono""",
    "reference": """order, orders, invoice, ticket, case, ref, reference, tracking, shipment, parcel, package, serial,
        sku, part, article, item, rma, booking, account, contract, customer, purchase, transaction, bestellung,
        bestellnummer, auftrag, rechnung, kundennummer, commande, facture, pedido, factura, ean, isbn, imei, id""",
    "national": """national id, national identity, identity number, identity card, identity no, id card, tax id,
        taxpayer id, tax no, tax number, personal id, personal identity, citizen id, citizen number, tin""",
    "us": "ssn, itin, social security, social sec",
    "gb": "nino, national insurance, ni number, ni no",
    "de": "idnr, steuer id, steuerid, identifikationsnummer, steueridentifikationsnummer, steuernummer",
    "fr": "nir, sécurité sociale, securite sociale, numéro sécu, de sécu, n sécu",
    "es": "dni, nie, nif, documento nacional",
    "it": "codice fiscale, cod fisc",
    "nl": "bsn, burgerservicenummer, sofinummer",
    "br": "cpf",
    "in": "aadhaar, aadhar, uidai",
    "pl": "pesel",
    "se": "personnummer, personnr, samordningsnummer",
}
_SAYS = {cue: said for said, cues in _CUES.items() for cue in " ".join(cues.split()).split(", ")}
_OF_OTHER_SCRIPTS: dict[str, Said] = {PHONE: "phone", REFERENCE: "reference", NATIONAL: "national"}
_SAYS |= {letter * n: said for letter, said in _OF_OTHER_SCRIPTS.items() for n in range(1, _LONGEST_CUE + 1)}
_CARD = frozenset(
    re.findall(
        r"\w+",
        """card cards cc credit debit visa master mastercard amex maestro karte carte tarjeta""",
    )
) | {CARD * n for n in range(1, _LONGEST_CUE + 1)}
_WORD = re.compile(r"[0-9]+(?:[.,:][0-9]+)*|[^\W_]+")
_REACH = 64
"""Characters before a number in which a word can speak for it."""
_REACH_WORDS = 5
_PHONE_AFTER = re.compile(
    r"(?i)\W*(?:(?:is|was|my|our|the|work|home)\W+){0,3}(?:phone|mobile|cell|telephone|fax|office)\b"
)
_ID_AFTER = re.compile(r"(?i)\W*(?:is|was|=)\W+(?:(?:my|his|her|our|the|their)\W+)?")


def said_before(text: str, start: int) -> Said | None:
    """What the nearest telling word before `start`, with at most four words between, says that a number there is.

    >>> said_before("call me at 9472 7916", 11), said_before("call about order 9472 7916", 17)
    ('phone', 'reference')
    """
    words = words_before(text, start)
    for place in range(len(words) - 1, -1, -1):
        said = _SAYS.get(" ".join(words[max(0, place - 1) : place + 1])) or _SAYS.get(words[place])
        if said is not None:
            return said
    return None


def says_card(text: str, start: int) -> bool:
    """Whether a word for a payment card stands before `start`, with at most four words between."""
    return not _CARD.isdisjoint(words_before(text, start))


def said_after(text: str, end: int) -> Said | None:
    """What the words right after `end` say: "9472 7916 is my mobile", "460-89-9847 is my SSN".

    >>> said_after("460899847 is my SSN", 9)
    'us'
    """
    after = text[end : end + 40]
    if _PHONE_AFTER.match(after):
        return "phone"
    gap = _ID_AFTER.match(after)
    words = _WORD.findall(after[gap.end() :].lower())[:2] if gap is not None else []
    return _SAYS.get(" ".join(words)) or (_SAYS.get(words[0]) if words else None)


def words_before(text: str, start: int) -> list[str]:
    """The last five words before `start` on its line, in lower case; of the line above where that ends in a colon."""
    before, _, line = text[max(0, start - _REACH) : start].rpartition("\n")
    if not line.strip() and before.rstrip().endswith(":"):
        line = before.rstrip().rpartition("\n")[2]
    return _WORD.findall(line.lower())[-_REACH_WORDS:]
