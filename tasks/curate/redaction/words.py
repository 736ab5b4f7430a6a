"""Read the lists of words that the finders search for, and join words into patterns for Python and RE2."""

import re
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field
from ruamel.yaml import YAML

from schemas.spec import Spec

Words = Annotated[str, Field(pattern=r"^[^,]+(, [^,]+)*$")]
"""Words or phrases, separated by commas."""
LowerWords = Annotated[str, Field(pattern=r"^[^,A-Z]+(, [^,A-Z]+)*$")]
File = TypeVar("File", bound=Spec)


def read_words(name: str, file: type[File]) -> File:
    """Read and check the YAML file of this name next to this module."""
    path = Path(__file__).with_name(f"{name}.yaml")
    return file.model_validate(YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8")))


def any_of(words: str, *, space: str = "[ ]", apostrophe: str = "['’]") -> str:
    """The alternatives of a pattern: the longest word first, with these patterns for each space and each '.

    >>> any_of("d.o.b, driver's license", space="[ ._-]?")
    "driver['’]s[ ._-]?license|d\\\\.o\\\\.b"
    """
    longest_first = sorted(words.split(", "), key=len, reverse=True)
    return "|".join(
        space.join(re.escape(part).replace("'", apostrophe) for part in word.split(" ")) for word in longest_first
    )
