"""Files as strangers bring them: the shapes of real exports, with other words, each made by a seed."""

import csv
import io
import random
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

Row = dict[str, Any]

PRODUCTS = ("Nordlicht lamp", "Halm kettle", "Tern radio", "Fjord router", "Moss speaker")
FAULTS = (
    "does not start",
    "arrived broken",
    "was charged twice",
    "shows an error",
    "is missing a part",
    "gets too hot",
)
TIMES = ("since Monday", "since the update", "for two weeks", "again", "every evening", "after the move")
WISHES = ("Please help.", "What shall I do?", "I want my money back.", "Can you send another one?", "Please call me.")
PARTS = ("switch", "cable", "display", "cover", "battery", "manual", "invoice", "antenna", "filter", "remote control")


def sentence(draw: random.Random) -> str:
    """A customer's words; hardly two of them are alike."""
    number = draw.randrange(100_000, 999_999)
    parts, year = draw.sample(PARTS, 3), draw.randrange(1990, 2026)
    return (
        f"My {draw.choice(PRODUCTS)} {draw.choice(FAULTS)} {draw.choice(TIMES)}, order {number}. "
        f"The {parts[0]} is fine, the {parts[1]} and the {parts[2]} from {year} are not. {draw.choice(WISHES)}"
    )


def write_rows(path: Path, rows: list[Row], *, delimiter: str = ",", encoding: str = "utf-8") -> Path:
    """Write rows as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    path.write_bytes(text.getvalue().encode(encoding))
    return path


def public_desk(folder: Path) -> Path:
    """The much copied public file: an unfilled `{product_purchased}` in each text, replies in a third of the rows."""
    draw = random.Random(1)
    return write_rows(
        folder / "customer_support_tickets.csv",
        [
            {
                "Ticket ID": n,
                "Customer Name": f"Customer {n % 700}",
                "Customer Email": f"person{n % 700}@example.org",
                "Product Purchased": draw.choice(PRODUCTS),
                "Ticket Type": draw.choice(("Billing inquiry", "Refund request", "Technical issue")),
                "Ticket Subject": draw.choice(("Account access", "Setup", "Product compatibility")),
                "Ticket Description": f"I'm having an issue with the {{product_purchased}}. {sentence(draw)}",
                "Ticket Status": ("Open", "Closed", "Pending")[n % 3],
                "Resolution": f"Case {n} was settled by a new {draw.choice(PARTS)} on day {n}." if n % 3 == 1 else "",
            }
            for n in range(900)
        ],
    )


def anonymised(folder: Path) -> Path:
    """An export whose names were replaced by [NAME] before it left the house."""
    draw = random.Random(2)
    return write_rows(
        folder / "anonymised.csv",
        [
            {
                "id": n,
                "created_at": f"2026-{1 + n % 9:02d}-{1 + n % 28:02d}T08:{n % 60:02d}:00Z",
                "message": f"Hello [NAME], {sentence(draw)}",
                "reply": f"Dear [NAME], please send the {draw.choice(PARTS)} of case {n} back. [NAME], your desk",
                "queue": draw.choice(("billing", "repairs", "delivery")),
            }
            for n in range(600)
        ],
    )


def two_languages(folder: Path) -> Path:
    """Nine of ten texts that are long enough to detect are English; the short ones are in five other languages."""
    draw = random.Random(3)
    short = ("Wo bleibt das Paket {}?", "Où est le colis {} ?", "¿Dónde está {}?", "Dove è il pacco {}?")
    return write_rows(
        folder / "desk.csv",
        [
            {
                "ticket_id": f"T{n}",
                "body": sentence(draw) if n % 2 else draw.choice(short).format(n) * (1 + n % 3),
                "label": draw.choice(("billing", "repairs", "delivery")),
            }
            for n in range(600)
        ],
    )


def chatty(folder: Path) -> Path:
    """A third of the replies answer nothing."""
    draw = random.Random(4)
    return write_rows(
        folder / "chatty.csv",
        [
            {
                "ticket_id": f"T{n}",
                "body": sentence(draw),
                "reply": "Closed." if n % 3 == 0 else f"We replace the {draw.choice(PARTS)} of order {n} this week.",
            }
            for n in range(600)
        ],
    )


def german_excel(folder: Path) -> Path:
    """A German Excel export: semicolons, windows-1252, days first, umlauts in the header."""
    draw = random.Random(5)
    faults = (
        "l\u00e4sst sich nicht einschalten",
        "kam besch\u00e4digt an",
        "wurde doppelt abgebucht",
        "zeigt einen Fehler",
    )
    return write_rows(
        folder / "export.csv",
        [
            {
                "Vorgangsnr.": 40_000 + n,
                "Eingangsdatum": f"{1 + n % 28:02d}.{1 + n % 9:02d}.2026 {n % 24:02d}:{n % 60:02d}",
                "Kundennr.": 1_000 + n % 300,
                "Betreff": f"Frage zu Auftrag {n}",
                "Nachricht": f"Guten Tag, mein Ger\u00e4t {draw.choice(PRODUCTS)} Nummer {n} {draw.choice(faults)}. "
                f"Was tun? Die Nummer auf dem Schild ist {draw.randrange(10**6)}.",
                "Abteilung": draw.choice(("Rechnung", "Reparatur", "Versand")),
            }
            for n in range(600)
        ],
        delimiter=";",
        encoding="cp1252",
    )


def itil_queue(folder: Path) -> Path:
    """Types of ITIL next to the queue of the team that answers."""
    draw = random.Random(6)
    queues = ("Billing and Payments", "Technical Support", "Product Support", "Returns and Exchanges", "IT Support")
    return write_rows(
        folder / "itil.csv",
        [
            {
                "subject": f"Case about the {draw.choice(PARTS)}, number {n}",
                "body": sentence(draw),
                "answer": f"Thank you. Please send the {draw.choice(PARTS)} with number {n} to our desk.",
                "type": draw.choice(("Incident", "Request", "Problem", "Change")),
                "queue": draw.choice(queues),
                "priority": draw.choice(("low", "medium", "high")),
            }
            for n in range(600)
        ],
    )


def french_desk(folder: Path) -> Path:
    """A French export in latin-1, where `service` is the department."""
    draw = random.Random(7)
    return write_rows(
        folder / "demandes.csv",
        [
            {
                "num\u00e9ro": f"D-{n}",
                "date d'ouverture": f"{1 + n % 28:02d}/{1 + n % 9:02d}/2026 {n % 24:02d}:{n % 60:02d}",
                "objet": f"Commande {n}",
                "demande": f"Bonjour, l'appareil {draw.choice(PRODUCTS)} de la commande {n} ne marche plus depuis le "
                f"{1 + n % 28} mai, num\u00e9ro {draw.randrange(10**6)}. Que faire ?",
                "service": draw.choice(("facturation", "r\u00e9paration", "livraison")),
                "urgence": draw.choice(("basse", "haute")),
            }
            for n in range(600)
        ],
        delimiter=";",
        encoding="latin-1",
    )


def ctime_log(folder: Path) -> Path:
    """A tab-separated log whose only time is that of `ctime`, under a name that says nothing."""
    draw = random.Random(8)
    start = datetime(2026, 1, 5)
    return write_rows(
        folder / "utterances.tsv",
        [
            {
                "logged": (start + timedelta(minutes=37 * n)).strftime("%a %b %d %H:%M:%S %Y"),
                "text": sentence(draw),
                "intent": draw.choice(("refund", "repair", "delivery")),
            }
            for n in range(600)
        ],
        delimiter="\t",
    )


STRANGERS: dict[str, Callable[[Path], Path]] = {
    make.__name__: make
    for make in (public_desk, anonymised, two_languages, chatty, german_excel, itil_queue, french_desk, ctime_log)
}
"""Name -> writes the file into a folder and returns its path."""
