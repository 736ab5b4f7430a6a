"""The words by which parts of a message are known: greetings, sign-offs, headers, in English, German, French, Spanish.

It decides nothing: what counts where is in `tasks/curate/mail/mail_parts.py`, the only one that reads this. All
patterns are for one line of bounded length, so that none can take long.
"""

from __future__ import annotations

import re

BLANK = " \t\r\f\v\u00a0"
"""What may stand around a line without meaning anything."""

# Greetings: the words that open one, and those that may follow beside names.
GREETING_OPENERS = (
    "hi", "hello", "hey", "dear", "good morning", "good afternoon", "good evening", "good day", "greetings",
    "to whom it may concern", "to whom it concerns",
    "hallo", "guten tag", "guten morgen", "guten abend", "sehr geehrte", "sehr geehrter", "sehr geehrtes", "liebe",
    "lieber", "liebes", "moin", "servus", "grüezi", "grüß gott",
    "bonjour", "bonsoir", "salut", "cher", "chère", "chers", "madame", "monsieur",
    "hola", "buenos días", "buen día", "buenas tardes", "buenas noches", "buenas", "estimado", "estimada", "estimados",
    "estimadas", "querido", "querida", "a quien corresponda",
)  # fmt: skip
_ADDRESSED = """
    there all everyone everybody team support care service customer customers sir sirs madam ma'am mr mrs ms miss dr
    prof or and to the folks guys again helpdesk desk dear good day
    herr frau herren damen und das die team zusammen alle nochmal kundenservice kundendienst support dr.
    madame monsieur mesdames messieurs à tous toutes et le la les service client équipe docteur
    señor señora señores señoras sr sra equipo y a todos todas de atención al cliente servicio soporte
"""
ADDRESSED = frozenset(_ADDRESSED.split())
"""Lower-case words of a greeting that are no names."""
_NO_NAMES = """
    i i'm i'd i've my me we we've our please can can't could would is are was the this that these it it's there's why
    how what when where who help need thanks thank urgent question problem order not no yes if as after since
    ich wir mein meine bitte kann können ist das wie warum wann wo hilfe
    je j'ai mon ma mes nous il elle pouvez comment pourquoi quand où merci s'il
    yo mi mis necesito tengo quiero por favor cómo cuándo dónde gracias
"""
NO_NAMES = frozenset(_NO_NAMES.split())
"""Words that are no name even with a capital: `Hello, My parcel ...`."""

# A sign-off is one unit or several (`Thanks and best regards`), alone on its line or with a name after it.
_UNITS = r"""
    (?:(?:with\s|my\s)?(?:many\s|kind\s|kindest\s|best\s|warm\s|warmest\s|friendly\s)?
        (?:regards|wishes|greetings)(?:\sfrom(?:\s\S+){1,3})?)
    |best|all\sthe\sbest|yours(?:\s(?:sincerely|truly|faithfully))?|sincerely(?:\syours)?|respectfully|cheers|rgds|br|kr
    |(?:many\s|kind\s)?(?:thanks|thank\syou|thx|tia)
        (?:\s(?:again|in\sadvance|so\smuch|very\smuch|a\slot|
        for\syour\s(?:kind\s)?(?:help|time|support|assistance|understanding|attention|patience|reply)))*
    |(?:mit\s)?(?:freundlich|best|lieb|herzlich|schön|viel)e[nrsm]?\s
        (?:grüßen?|grüssen?|gruessen?|gruß|gruss|wünschen?)(?:\saus(?:\s\S+){1,3})?
    |(?:vielen|besten|herzlichen|lieben)\sdank(?:\s(?:im\svoraus|für\sihre\s(?:hilfe|mühe|unterstützung)))?
    |danke(?:\s(?:schön|sehr|im\svoraus))?|grüße|gruß|viele\sgrüße|mfg|lg|vg|hochachtungsvoll
    |(?:bien\s|très\s)?cordialement|bien\sà\svous|(?:sincères\s|meilleures\s|cordiales\s)?salutations(?:\sdistinguées)?
    |amicalement|cdlt|bonne\sjournée|(?:merci)(?:\s(?:beaucoup|bien|d['’]avance|par\savance))?
    |(?:un\s|reciba\sun\s)?(?:cordial\s)?saludos?(?:\s(?:cordiales|cordial))?|atentamente|atte|cordialmente|un\sabrazo
    |(?:muchas\s|mil\s)?gracias(?:\s(?:de\santemano|por\ssu\s(?:ayuda|atención|tiempo)))?
    |с\sуважением
"""
_UNIT = re.sub(r"\s*\n\s*", "", _UNITS)
SIGN_OFF = re.compile(rf"(?:{_UNIT})(?:\s?(?:,|&|and|und|et|y)\s?(?:{_UNIT}))*\s?[,.!;]{{0,3}}", re.IGNORECASE)
"""One or more units; what follows in the line must be a name."""
SIGN_OFF_FIRST_WORDS = frozenset((
    "with", "my", "many", "kind", "kindest", "best", "warm", "warmest", "friendly", "regards", "wishes", "greetings",
    "all", "yours", "sincerely", "respectfully", "cheers", "rgds", "br", "kr", "thanks", "thank", "thx", "tia",
    "mit", "freundliche", "beste", "liebe", "herzliche", "schöne", "viele", "besten", "lieben", "herzlichen", "vielen",
    "freundlichen", "schönen", "danke", "grüße", "gruß", "mfg", "lg", "vg", "hochachtungsvoll",
    "bien", "très", "cordialement", "sincères", "meilleures", "cordiales", "salutations", "amicalement", "cdlt",
    "bonne", "merci",
    "un", "reciba", "cordial", "saludo", "saludos", "atentamente", "atte", "cordialmente", "muchas", "mil", "gracias",
    "с",
))  # fmt: skip
"""Every first word that `SIGN_OFF` can match: looked up before the pattern is tried."""

DEVICE_FIRST_WORDS = ("sent", "get", "von", "gesendet", "envoyé", "télécharger", "enviado", "obtener", "via")
_DEVICES = (
    "i-?phone|i-?pad|android|samsung|galaxy|blackberry|huawei|xiaomi|pixel|nokia|mobile|handy|smartphone|phone|outlook"
    "|e?-?mail|windows|yahoo|gmx|thunderbird|sparrow|móvil|mobil|téléphone|portable|tablet|device"
)
DEVICE = re.compile(
    rf"(?:(?:sent|gesendet|envoyé|enviado)\s(?:from|with|via|von|mit|de|depuis|desde)\b.*\b(?:{_DEVICES})\b.*"
    rf"|von\smeinem\s.*\sgesendet\.?|(?:get|télécharger|obtener)\soutlook\s.*|via\smobile)",
    re.IGNORECASE,
)
DISCLAIMER = re.compile(
    r"[*_\s]*(?:this (?:e-?mail|message)|the information (?:contained )?in this|confidentiality notice|confidential"
    r"|diese e-?mail|diese nachricht|ce (?:message|courriel|mail)|este (?:mensaje|correo))\b",
    re.IGNORECASE,
)
CONTACT = re.compile(
    r"(?:\S@\S+\.\S|\bwww\.\S|\bhttps?://\S|\[(?:EMAIL|PHONE|URL)_\d+\]|\+?\(?\d[\d ()./-]{6,20}\d"
    r"|^(?:tel|telephone|telefon|phone|mobile|mobil|cell|fax|skype|web|e-?mail|tél|móvil|correo|[tmfe])\b ?[.:])",
    re.IGNORECASE,
)

TITLES = frozenset({"dr", "mr", "mrs", "ms", "prof", "sr", "sra", "st"})
"""A full stop after these ends no greeting."""

HEADERS = {
    "from": "from", "von": "from", "de": "from",
    "to": "to", "an": "to", "à": "to", "a": "to", "para": "to",
    "sent": "sent", "date": "sent", "gesendet": "sent", "datum": "sent", "envoyé": "sent", "enviado": "sent",
    "fecha": "sent", "enviado el": "sent",
    "subject": "subject", "betreff": "subject", "objet": "subject", "asunto": "subject",
    "cc": "cc", "kopie": "cc",
}  # fmt: skip
"""Name of a header line -> what it says."""
FROM_NAMES = tuple(name for name, kind in HEADERS.items() if kind == "from")
REPLY_ABOVE_WORDS = ("this line", "dieser linie", "dieser zeile", "cette ligne", "esta línea")
VERBS = ("wrote", "writes", "schrieb", "écrit", "escribió", "scritto", "schreef", "escreveu", "napisał", "skrev")
ATTRIBUTION_START = re.compile(
    r"[-*\s]{0,8}(?:(?:on|am|le|el|il|op|em|den|w dniu)\s|\d|(?:mon|tue|wed|thu|fri|sat|sun)[a-z]{0,6}\b)",
    re.IGNORECASE,
)
ADDRESS = re.compile(r"\S@\S|\[EMAIL_\d")
ADDRESS_OR_TIME = re.compile(r"\S@\S|\[EMAIL_\d|\d{1,2}:\d{2}")
DATE = re.compile(r"\d{4}|\d{1,2}[./-]\d{1,2}")
ORIGINALS = (
    "original message", "ursprüngliche nachricht", "originalnachricht", "original-nachricht", "message d'origine",
    "message d’origine", "message original", "mensaje original", "messaggio originale", "mensagem original",
    "oorspronkelijk bericht",
)  # fmt: skip
ORIGINAL = re.compile(rf"[-_=*\s]*(?:{'|'.join(ORIGINALS)})[:\s]*[-_=*\s]*", re.IGNORECASE)
ORIGINAL_INITIALS = "-_=* OoUuMm"
FORWARDED = re.compile(
    r"[-_=*\s]*(?:begin )?(?:forwarded message|weitergeleitete nachricht|message transféré|mensaje reenviado)\b",
    re.IGNORECASE,
)
FORWARD_INITIALS = "-_=* BbFfWwMm"
REPLY_ABOVE = re.compile(
    r"\b(?:(?:reply|respond|write|type)\b.{0,30} above this line|oberhalb dieser (?:linie|zeile)"
    r"|au-dessus de cette ligne|(?:encima|arriba) de esta línea)",
    re.IGNORECASE,
)


def holds_reply_above(text: str) -> bool:
    """False where no line of the text can match `REPLY_ABOVE`."""
    lower = text.lower()
    return any(phrase in lower for phrase in REPLY_ABOVE_WORDS)
