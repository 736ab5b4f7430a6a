"""Canaries: made-up secrets that are planted among the examples, and the alternatives that they are ranked against.

Equal settings give equal secrets.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from schemas.training import Format, PlantedSpec
from tasks.model.chat_codec import ChatCodec, Encoded
from tasks.tickets.prompts import Message


@dataclass(frozen=True)
class Canary:
    """A question with one secret as its answer."""

    name: str
    question: str
    secret: str

    def prompt(self, form: Format) -> list[Message] | str:
        """The question as a single user turn, or as a text to complete."""
        return self.question if form == "completion" else [{"role": "user", "content": self.question}]

    def answer(self, secret: str, form: Format) -> str:
        """The sentence with this secret."""
        return f" The code is {secret}." if form == "completion" else f"The code is {secret}."


def make_canaries(spec: PlantedSpec, *, controls: bool = False) -> list[Canary]:
    """The canaries in order; with `controls`, an equal number of others that are never planted.

    >>> first, second = make_canaries(PlantedSpec(n=2))
    >>> first.secret != second.secret, make_canaries(PlantedSpec(n=2)) == [first, second]
    (True, True)
    """
    kind = "control" if controls else "canary"
    rng = random.Random(f"{kind} {spec.seed}")  # noqa: S311 - repeatable on purpose, protects nothing
    found = []
    for number in range(spec.n):
        locker = f"{rng.randrange(100, 1000)}-{2 * number + controls}"  # unique
        found.append(Canary(f"{kind}:{number:03}", f"What is the code of locker {locker}?", draw_secret(rng)))
    return found


def draw_secret(rng: random.Random) -> str:
    """Draw eight digits such as `4183 9027`, one of 10^8."""
    return f"{rng.randrange(10_000):04} {rng.randrange(10_000):04}"


def draw_alternatives(canary: Canary, n: int) -> list[str]:
    """Draw `n` distinct other secrets, always the same ones for a canary."""
    rng = random.Random(f"{canary.name} {canary.secret}")  # noqa: S311
    found = dict.fromkeys([canary.secret])
    while len(found) <= n:
        found[draw_secret(rng)] = None
    return list(found)[1:]


def planted_ids(spec: PlantedSpec | None) -> tuple[str, ...]:
    """Ids of the planted examples in the encoded train split.

    >>> planted_ids(PlantedSpec(n=1, repeats=2)), planted_ids(None)
    (('canary:000:000', 'canary:000:001'), ())
    """
    if spec is None:
        return ()
    return tuple(f"canary:{number:03}:{copy:03}" for number in range(spec.n) for copy in range(spec.repeats))


def planted_examples(spec: PlantedSpec, codec: ChatCodec) -> Iterator[tuple[str, Encoded]]:
    """Every planted example with its id."""
    ids = iter(planted_ids(spec))
    for canary in make_canaries(spec):
        prompt, answer = canary.prompt(codec.format), canary.answer(canary.secret, codec.format)
        if isinstance(prompt, str):
            encoded = codec.completion(prompt, answer)
        else:
            encoded = codec.conversation([*prompt, {"role": "assistant", "content": answer}])
        for _ in range(spec.repeats):
            yield next(ids), encoded
