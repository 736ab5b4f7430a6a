"""The words of the help desk: `phrases.yaml`, read once. Its patterns are those of `grammar.py`.

The order of every list counts: earlier phrases are drawn more often, and another order gives other tickets.
"""

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator
from ruamel.yaml import YAML

from schemas.spec import Spec

Tone = Literal["angry", "worried", "neutral", "polite", "happy"]
State = Literal["have", "wait", "any"]
"""`have`: the product stands at the customer's home and works as far as the text says; `wait`: it has not arrived;
`any`: neither may be taken for granted. Decides which side remarks fit."""
Texts = tuple[str, ...]


def _parted(text: Any) -> Any:
    """Subjects are short: one line holds all of them, parted by ` / `."""
    return tuple(text.split(" / ")) if isinstance(text, str) else text


class PhrasedConcern(Spec):
    """One concern, phrased in several ways."""

    step: str
    """Next step of the reply: a key of `Phrases.steps`."""
    subjects: Annotated[Texts, BeforeValidator(_parted)]
    texts: Texts
    state: State = "any"
    products: Texts = ()
    """Products it can happen to; empty: all."""
    happy: bool = False
    """Praise: written with joy, answered with joy, never urgent."""
    urgent: bool = False
    """The concern itself is a danger: priority is high without a further cue."""


class Product(Spec):
    """One product and what customers say of it."""

    name: str
    noun: str
    plural: str
    parts: Texts
    rooms: Texts
    place: str
    """Where it gets cold or hot."""
    faults: Texts
    """What it does wrong, as the end of a sentence that begins with its name."""
    prices: tuple[int, ...]
    """Euros, rising."""
    needed: Texts
    """For delivery and technical: what does not work without it."""


class Phrases(Spec):
    """The whole file; comments there say what each section is for."""

    products: tuple[Product, ...]
    first_names: Texts
    agents: dict[str, str]
    situations: dict[str, tuple[PhrasedConcern, ...]]
    plain_subjects: dict[str, Texts]
    vague_subjects: Texts
    reference_subjects: Texts
    reference_sentences: Texts
    owner_sentences: Texts
    greetings: dict[Tone, Texts]
    openers: dict[Tone, Texts]
    closers: dict[Tone, Texts]
    sign_offs: Texts
    follow_ups: Texts
    quotes: Texts
    topics: dict[str, Texts]
    settled: Texts
    open: Texts
    two_topics: Texts
    borrowed: Texts
    low: Texts
    normal: Texts
    urgent: Texts
    causes: dict[str, Texts]
    high: dict[str, Texts]
    remarks: dict[str, dict[State, Texts]]
    personal_kinds: dict[str, Texts]
    personal_data: dict[str, Texts]
    control_tokens: Texts
    short_bodies: Texts
    acknowledgements: dict[Tone, str]
    steps: dict[str, str]
    contacts: Texts
    short_replies: Texts
    untriaged_replies: Texts


PHRASES: Final = Phrases.model_validate(YAML(typ="safe", pure=True).load(Path(__file__).with_name("phrases.yaml")))
