"""The words that say what a number is, and the ways in which personal numbers are written: `number_words.yaml`, read
once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from ruamel.yaml import YAML

from schemas.spec import Spec

Said = Literal["phone", "reference", "national", "us", "gb", "de", "fr", "es", "it", "nl", "br", "in", "pl", "se"]
Words = Annotated[str, Field(pattern=r"^[^\W\d_]+( [^\W\d_]+)?(, [^\W\d_]+( [^\W\d_]+)?)*$")]
"""One or two words each, divided by commas."""
Reading = Annotated[str, Field(pattern=r"^[a-z]{2}_?\.[a-z]+ [a-z]+( alone)?$")]
"""Module of python-stdnum, the cue, and `alone` where the way of writing is evidence enough."""


class NumberWords(Spec):
    """The whole file; comments there say what each section is for."""

    says: dict[Said, Words]
    links: Words
    number: Words
    card: Words
    shapes: dict[Annotated[str, Field(pattern=r"^[9 .+-]+$")], tuple[Reading, ...]]

    def cues(self) -> dict[str, Said]:
        """Word or words -> what they say."""
        return {cue: said for said, cues in self.says.items() for cue in cues.split(", ")}


NUMBER_WORDS = NumberWords.model_validate(
    YAML(typ="safe", pure=True).load(Path(__file__).with_name("number_words.yaml"))
)
