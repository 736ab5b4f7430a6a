"""Texts with marked spans for `benchmarks/redaction.py`: two public sets, and sentences that only look personal."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Callable
from pathlib import Path

KINDS = {
    "EMAIL_ADDRESS": "email", "PHONE_NUMBER": "phone", "CREDIT_CARD": "card", "IBAN_CODE": "iban", "PERSON": "name",
    "IP_ADDRESS": "ip", "DOMAIN_NAME": "url", "URL": "url", "US_SSN": "national_id", "US_ITIN": "national_id",
}  # fmt: skip
"""Entity of presidio and its data set -> our type; other entities (places, titles, ages) are in neither count."""
Span = tuple[int, int, str]


def presidio_texts(data: Path) -> list[tuple[str, list[Span]]]:
    items = json.loads((data / "presidio_pii" / "synth_dataset_v2.json").read_text(encoding="utf-8"))
    return [
        (
            item["full_text"],
            [
                (span["start_position"], span["end_position"], KINDS[span["entity_type"]])
                for span in item["spans"]
                if span["entity_type"] in KINDS
            ],
        )
        for item in items
    ]


def wnut_texts(data: Path) -> list[tuple[str, list[Span]]]:
    """The development sentences of WNUT17, words joined by a space; only people are labelled here."""
    texts: list[tuple[str, list[Span]]] = []
    text, spans = "", list[Span]()
    for line in [*(data / "wnut17_ner" / "emerging.dev.conll").read_text(encoding="utf-8").splitlines(), ""]:
        word, _, tag = line.partition("\t")
        if not word.strip():
            if text:
                texts.append((text, spans))
            text, spans = "", []
            continue
        start = len(text) + bool(text)
        text = f"{text} {word}" if text else word
        if tag == "B-person":
            spans.append((start, len(text), "name"))
        elif tag == "I-person" and spans:
            spans[-1] = (spans[-1][0], len(text), "name")
    return texts


def hard_negatives(n_texts: int) -> list[tuple[str, list[Span]]]:
    """Sentences of a help desk with numbers that are nothing personal, drawn from a seed."""
    draw = random.Random(20260601)  # noqa: S311

    def digits(n: int) -> str:
        return "".join(draw.choices("0123456789", k=n))

    def letters(n: int) -> str:
        return "".join(draw.choices("ABCDEFGHJKLMNPQRSTUVWXYZ", k=n))

    def version() -> str:
        return ".".join(str(draw.randrange(60)) for _ in range(4))

    kinds: tuple[Callable[[], str], ...] = (
        lambda: f"Where is order {digits(10)}?",
        lambda: f"My order number is {digits(12)}.",
        lambda: f"Order #{digits(16)} has not arrived",
        lambda: f"order {digits(3)}-{digits(7)}-{digits(7)}",
        lambda: f"It was {letters(2)}-{digits(5)}, not {letters(3)}{digits(8)}.",
        lambda: f"Tracking number 1Z{digits(6)}{digits(10)}",
        lambda: f"The tracking number {digits(12)} shows nothing",
        lambda: f"tracking {digits(4)} {digits(4)} {digits(4)}",
        lambda: f"parcel {letters(2)}{digits(9)}US is lost",
        lambda: f"Invoice INV-{draw.randrange(2019, 2027)}-{digits(7)} over {digits(1)}.{digits(3)}.{digits(3)},00 EUR",
        lambda: f"Since firmware {version()} the lamp blinks",
        lambda: f"I upgraded from {version()} to {version()}",
        lambda: f"App version {draw.randrange(9)}.{draw.randrange(20)}.{draw.randrange(20)}, build {digits(8)}",
        lambda: f"EAN {digits(13)}, article {digits(8)}",
        lambda: f"serial SN{digits(10)}{letters(2)}",
        lambda: f"at {1_600_000_000_000 + draw.randrange(10**11)} the call failed",
        lambda: f"On 2026-0{draw.randrange(1, 10)}-1{draw.randrange(10)} 1{draw.randrange(10)}:30:05 it broke",
        lambda: f"{uuid.UUID(int=draw.getrandbits(128))} is what the page says",
        lambda: f"It cost 1 {digits(3)} {digits(3)} yen on 0{draw.randrange(1, 10)}.06.2026",
        lambda: f"commit {draw.getrandbits(160):040x} in the log",
        lambda: f"We measured {draw.randrange(9)}.{digits(12)} GB",
        lambda: f"ticket {digits(9)} and case {digits(8)}{letters(1)}",
        lambda: f"std::vector<int> a{digits(2)}::b{digits(3)} does not build",
        lambda: "the password is wrong, token: expired, and the secret is that it never worked",
    )
    return [(kinds[number % len(kinds)](), []) for number in range(n_texts)]
