"""A file of tickets as somebody may export it."""

import csv
from pathlib import Path

WORDS = ("parcel", "invoice", "lamp", "refund", "courier", "update", "account", "delay", "charge", "order")


def write_tickets(path: Path, n: int, *, reply: str = "We look into your {}.") -> None:
    """Questions that differ, with a label and, unless it is empty, a reply."""
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["question", "label", *(["answer"] if reply else [])])
        for number in range(n):
            one, two = WORDS[number % 10], WORDS[number // 10 % 10]
            text = f"My {one} number {number} and the {two} of week {number * 7 % 53} are wrong, what shall I do?"
            writer.writerow([text, ("billing", "delivery")[number % 2], *([reply.format(one)] if reply else [])])
