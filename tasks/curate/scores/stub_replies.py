"""Recognise replies that only note that a ticket is done: `closed`, `duplicate of #123`, `see above`.

It knows nothing of tables. Called by `tasks/curate/quality.py` for short replies only.
"""

from __future__ import annotations

import re

MAX_WORDS = 8
"""Longer replies are never stubs."""
_NOTES = """
    closed | closing | close | ticket closed | closing( this)?( ticket| case| issue)? | case closed | auto ?closed
    | done | fixed | resolved | solved | completed | handled | answered | noted | ack | acknowledged
    | wont ?fix | won t fix | not reproducible | cannot reproduce | invalid | spam | test | testing | tbd | todo
    | duplicate | dup | dupe | merged
    | (closed |closing )?(as |this is )?(a )?(duplicate|dup|dupe)( ticket| issue)?( of)? REF
    | (see|merged (with|into)|moved to|same as|as per) REF
    | (please )?(see|as) (above|below|previous|prior|earlier)( reply| answer| comment| mail| email| ticket| message)?
    | (please )?see (my|our|the) (previous|last|earlier|other)( reply| answer| comment| mail| email| message)?
    | (please )?see (attached|attachment|notes?|internal notes?|comments?)
    | no (reply|answer|response|comment|action)( needed| required| necessary)? | n ?a | none | null | nil | empty
    | ok | okay | thanks | thank you | thx | thank you for (your )?(mail|email|message|contacting us) | hi | hello
    | erledigt | geschlossen | gelöst | doppelt | duplikat | siehe oben
    | fermé | résolu | doublon | voir ci dessus | cerrado | resuelto | duplicado | ver arriba
    | fechado | resolvido | veja acima | chiuso | risolto | vedi sopra | gesloten | opgelost | zie boven
"""
_REFERENCE = r"(ticket |case |issue |order |no |number )*(\w{1,6} )?\w*\d\w*( \w*\d\w*)*"
_STUB = re.compile(" ".join(_NOTES.split()).replace(" | ", "|").replace("REF", _REFERENCE))
_BETWEEN = re.compile(r"[\W_]+")


def is_stub(reply: str) -> bool:
    """Return whether a reply has no word, or is only such a note.

    >>> [is_stub(text) for text in ("Closed.", "Duplicate of #4711", "See above!", "...", "Closed your account today.")]
    [True, True, True, True, False]
    """
    words = _BETWEEN.sub(" ", reply.casefold()).strip()
    return not words or _STUB.fullmatch(words) is not None
