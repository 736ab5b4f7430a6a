"""Read `number_words.yaml`: words that say what a number is, and the forms of national ids."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schemas.spec import Spec
from tasks.curate.redaction.words import read_words

Said = Literal["phone", "reference", "national", "us", "gb", "de", "fr", "es", "it", "nl", "br", "in", "pl", "se"]
Words = Annotated[str, Field(pattern=r"^[^\W\d_]+( [^\W\d_]+)?(, [^\W\d_]+( [^\W\d_]+)?)*$")]
"""Cues of one or two words, separated by commas."""
Reading = Annotated[str, Field(pattern=r"^[a-z]{2}_?\.[a-z]+ [a-z]+( alone)?$")]
"""Module of python-stdnum, the cue, and `alone` if the form is enough evidence without a cue."""


class NumberWords(Spec):
    """The file; its comments describe each section."""

    says: dict[Said, Words]
    links: Words
    number: Words
    card: Words
    shapes: dict[Annotated[str, Field(pattern=r"^[9 .+-]+$")], tuple[Reading, ...]]

    def cues(self) -> dict[str, Said]:
        """Map each cue to what it says."""
        return {cue: said for said, cues in self.says.items() for cue in cues.split(", ")}


NUMBER_WORDS = read_words("number_words", NumberWords)
