"""Files as strangers bring them: the shapes of real exports, with other words, each made by a seed."""

import csv
import gzip
import io
import json
import mailbox
import random
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

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
    """An export with [NAME] in the place of names, as its company hands it out."""
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
    faults = {
        "l\u00e4sst sich nicht einschalten": "Reparatur",
        "zeigt einen Fehler": "Reparatur",
        "kam besch\u00e4digt an": "Versand",
        "wurde doppelt abgebucht": "Rechnung",
    }
    return write_rows(
        folder / "export.csv",
        [
            {
                "Vorgangsnr.": 40_000 + n,
                "Eingangsdatum": f"{1 + n % 28:02d}.{1 + n % 9:02d}.2026 {n % 24:02d}:{n % 60:02d}",
                "Kundennr.": 1_000 + n % 300,
                "Betreff": f"Frage zu Auftrag {n}",
                "Nachricht": f"Guten Tag, mein Ger\u00e4t {draw.choice(PRODUCTS)} Nummer {n} {fault}. "
                f"Dabei sind {', '.join(draw.sample(PARTS, 3))}. Auf dem Schild steht {draw.randrange(10**6)}.",
                "Abteilung": faults[fault],
            }
            for n, fault in enumerate(draw.choices(list(faults), k=600))
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
                f"{1 + n % 28} mai : {', '.join(draw.sample(PARTS, 3))}, num\u00e9ro {draw.randrange(10**6)}.",
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
                "id": "" if n % 4 else f"U{n}",
                "logged": (start + timedelta(minutes=37 * n)).strftime("%a %b %d %H:%M:%S %Y"),
                "text": sentence(draw),
                "intent": draw.choice(("refund", "repair", "delivery")),
            }
            for n in range(600)
        ],
        delimiter="\t",
    )


TEAMS = {
    "Billing and Payments": ["invoice", "amount", "refund", "bank", "card", "charge", "tax", "discount"],
    "Technical Support": ["firmware", "crash", "driver", "restart", "sensor", "network", "signal", "update"],
    "Returns and Exchanges": ["parcel", "courier", "return", "box", "exchange", "damaged", "label", "depot"],
    "Sales": ["offer", "quantity", "reseller", "catalogue", "sample", "price-list", "demo", "order-form"],
}
"""A team's queue -> words that its customers use."""


def about(draw: random.Random, team: str) -> str:
    """A customer's words, some of which say whose they are."""
    return f"It is about {' and '.join(draw.sample(TEAMS[team], 2))}. {sentence(draw)}"


def multilingual(folder: Path) -> Path:
    """Tickets in five languages with tags, and replies of which many are long."""
    draw = random.Random(9)
    hello = {"en": "Hello, my order is late", "de": "Guten Tag, meine Bestellung kommt zu spaet und ich warte",
             "fr": "Bonjour, ma commande est en retard et je l'attends toujours",
             "es": "Hola, mi pedido llega tarde y todavia lo estoy esperando",
             "pt": "Bom dia, o meu pedido esta atrasado e ainda estou esperando"}  # fmt: skip
    rows = []
    for n in range(600):
        language, team = draw.choice(list(hello)), draw.choice(list(TEAMS))
        words = " ".join(draw.sample(TEAMS[team], 2))
        rows.append(
            {
                "subject": f"{words} {n}",
                "body": f"{hello[language]}: {words}, {draw.randrange(10**6)}, {' '.join(draw.sample(PARTS, 3))}.",
                "answer": f"{hello[language]}, {n}. {'We look at it, ' * (60 if n % 5 < 2 else 3)}your desk {n}.",
                "type": draw.choice(("Incident", "Request", "Problem", "Change")),
                "queue": team,
                "priority": draw.choice(("low", "medium", "high")),
                "language": language,
                "tag_1": draw.choice(PARTS),
                "tag_2": draw.choice(("", *PARTS)),
            }
        )
    return write_rows(folder / "tickets-multi.csv", rows)


def numbered_labels(folder: Path) -> Path:
    """Tickets of a desk that writes numbers in the place of names, most of them of one kind."""
    draw = random.Random(10)
    rows = []
    for n in range(700):
        number = 4 if draw.random() < 0.6 else draw.choice((1, 3, 5, 7) if n % 90 else (11,))
        team = list(TEAMS)[number % 4]
        rows.append(
            {
                "title": f"{draw.choice(TEAMS[team])} {n}",
                "body": about(draw, team),
                "ticket_type": number % 2,
                "category": number,
                "sub_category1": draw.randrange(40),
                "business_service": draw.randrange(90),
                "urgency": draw.randrange(4),
                "impact": draw.randrange(5),
            }
        )
    return write_rows(folder / "all_tickets.csv", rows)


def marked_csv(folder: Path) -> Path:
    """A CSV as Windows writes it: byte order mark and CRLF."""
    draw = random.Random(11)
    start = datetime(2026, 2, 3, 10)
    rows = [
        {"Id": n, "Text": about(draw, team), "Department": team, "Opened": f"{start + timedelta(minutes=53 * n)}"}
        for n, team in enumerate(draw.choices(list(TEAMS), k=300))
    ]
    return write_rows(folder / "marked.csv", rows, encoding="utf-8-sig")


def excel_serials(folder: Path) -> Path:
    """A sheet of Excel as CSV, whose times are numbers of days, next to amounts and ids of the same size."""
    draw = random.Random(12)
    rows = [
        {
            "Case": 41_000 + n,
            "Received": f"{46_027 + n / 9 + n % 1440 / 1440:.9f}",
            "Account": 42_000 + n % 150,
            "Amount": f"{draw.uniform(40_000, 50_000):.2f}",
            "Message": about(draw, team),
            "Team": team,
        }
        for n, team in enumerate(draw.choices(list(TEAMS), k=600))
    ]
    return write_rows(folder / "sheet.csv", rows)


def many_intents(folder: Path) -> Path:
    """150 intents, each with its own words."""
    draw = random.Random(13)
    letters = "bdfgklmnprstvz"
    words = [f"{a}{b}{c}" for a in letters for b in "aeiou" for c in letters][:450]
    rows = []
    for n in range(1500):
        own = words[3 * (n % 150) :][:3]
        text = f"Please {own[0]} my {draw.choice(PARTS)} and {own[1 + n // 150 % 2]} {n} {draw.choice(TIMES)}"
        rows.append({"text": text, "intent": f"intent_{n % 150}"})
    path = folder / "intents.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def parts_object(folder: Path) -> Path:
    """One object with a list of rows for each part; a row is a text and its label."""
    draw = random.Random(14)
    parts = {
        part: [[about(draw, team), team] for team in draw.choices(list(TEAMS), k=n)]
        for part, n in (("oos_val", 40), ("val", 60), ("train", 300), ("test", 60))
    }
    path = folder / "data_full.json"
    path.write_text(json.dumps(parts))
    return path


def workbook(folder: Path) -> Path:
    """An Excel workbook, as far as a reader looks before it refuses one."""
    path = folder / "tickets.xlsx"
    with zipfile.ZipFile(path, "w") as written:
        for name in ("[Content_Types].xml", "xl/sharedStrings.xml", "xl/worksheets/sheet1.xml"):
            written.writestr(name, "<x/>")
    return path


def mail_box(folder: Path) -> Path:
    """A mailbox of customers' questions."""
    draw = random.Random(21)
    path = folder / "in.mbox"
    box = mailbox.mbox(path)
    for n in range(50):
        mail = EmailMessage()
        mail["From"], mail["Subject"], mail["Message-ID"] = f"p{n}@example.org", f"Case {n}", f"<{n}@example.org>"
        mail.set_content(sentence(draw))
        box.add(mail)
    box.close()
    return path


def wide_text(folder: Path) -> Path:
    """A CSV in UTF-16, as Excel saves "Unicode text"."""
    draw = random.Random(22)
    rows = [
        {"id": n, "text": about(draw, team), "team": team} for n, team in enumerate(draw.choices(list(TEAMS), k=300))
    ]
    return write_rows(folder / "unicode.csv", rows, encoding="utf-16")


def _chat(draw: random.Random, agent: str, text: str) -> list[Row]:
    """Several exchanges; some speakers write twice in a row, and the customer has the last word."""
    turns = []
    for at in range(draw.randrange(2, 5)):
        turns.append({"index": len(turns), "speaker": "USER", text: sentence(draw)})
        if draw.random() < 0.2:
            turns.append({"index": len(turns), "speaker": "USER", text: f"It is the {draw.choice(PARTS)}."})
        answer = f"Please send the {draw.choice(PARTS)} {draw.randrange(10**6)} back, step {at}."
        turns.append({"index": len(turns), "speaker": agent, text: answer})
    return [*turns, {"index": len(turns), "speaker": "USER", text: "Thank you, bye."}]


def chats(folder: Path) -> Path:
    """Conversations as lists of turns, one of which begins with the agent."""
    draw = random.Random(15)
    rows = [
        {
            "conversation_id": f"dlg-{n}",
            "instruction_id": f"repair-{n % 7}",
            "utterances": _chat(draw, "ASSISTANT", "text"),
        }
        for n in range(200)
    ]
    for row in rows[::3]:
        row["utterances"].insert(0, {"index": -1, "speaker": "ASSISTANT", "text": "Hello, how can I help?"})
    path = folder / "chats.json"
    path.write_text(json.dumps(rows))
    return path


def service_chats(folder: Path) -> Path:
    """Conversations whose agent is called SYSTEM, with frames of values in each turn."""
    draw = random.Random(16)
    frames = [{"service": "Shop_1", "slots": []}]
    rows = [
        {
            "dialogue_id": f"{n % 9}_{n:05d}",
            "services": [draw.choice(("Shop_1", "Repair_2"))],
            "turns": [{"frames": frames, **turn} for turn in _chat(draw, "SYSTEM", "utterance")],
        }
        for n in range(200)
    ]
    path = folder / "dialogues_001.json"
    path.write_text(json.dumps(rows))
    return path


def turn_rows(folder: Path) -> Path:
    """A row for each of a customer's turns; `conversation` has ids, and many labels say that there is none."""
    draw = random.Random(17)
    rows = []
    for chat in range(300):
        for turn in range(draw.randrange(1, 5)):
            team = draw.choice(list(TEAMS))
            label = "NONE" if draw.random() < 0.2 else team
            rows.append({"conversation": f"c{chat}", "turn": turn, "text": about(draw, team), "intent": label})
    path = folder / "turns.csv.gz"
    path.write_bytes(gzip.compress(write_rows(folder / "turns.csv", rows).read_bytes(), mtime=0))
    (folder / "turns.csv").unlink()
    return path


def listed_parquet(folder: Path) -> Path:
    """Parquet with lists, and times that have a zone; the type of ITIL is next to the queue."""
    draw = random.Random(18)
    start = datetime(2026, 1, 5, tzinfo=UTC)
    rows = [
        {
            "Subject": f"{draw.choice(TEAMS[team])} {n}",
            "Body": about(draw, team),
            "Answer": f"Thank you. Please send the {draw.choice(PARTS)} with number {n} to our desk.",
            "Type": draw.choice(("Incident", "Request", "Problem", "Change")),
            "Queue": team,
            "Tags": draw.sample(PARTS, 2),
            "Created": start + timedelta(minutes=53 * n),
        }
        for n, team in enumerate(draw.choices(list(TEAMS), k=600))
    ]
    path = folder / "tickets.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def french_hours(folder: Path) -> Path:
    """A small French export in latin-1 whose times are 14h35; only `service` is in the texts."""
    draw = random.Random(19)
    teams = {
        "facturation": ("facture", "montant"),
        "atelier": ("panne", "pi\u00e8ce"),
        "livraison": ("colis", "retard"),
    }
    rows = []
    for n in range(150):
        team = draw.choice(list(teams))
        rows.append(
            {
                "numero": f"D{n}",
                "date d'ouverture": f"{1 + n % 28:02d}/{1 + n % 9:02d}/2026 {8 + n % 10}h{n % 60:02d}",
                "demande": f"Bonjour, {draw.choice(teams[team])} {n}, {draw.choice(PARTS)} du {draw.choice(PRODUCTS)}, "
                f"r\u00e9f\u00e9rence {draw.randrange(10**6)}, ne va pas. Que faire ?",
                "r\u00e9ponse": f"Merci, nous regardons le dossier {n} et l'{draw.choice(PARTS)} cette semaine.",
                "service": team,
                "urgence": draw.choice(("basse", "haute", "moyenne")),
            }
        )
    return write_rows(folder / "sav.csv", rows, delimiter=";", encoding="latin-1")


def unlearnable(folder: Path) -> Path:
    """A label that no text shows, next to one that each text shows."""
    draw = random.Random(20)
    rows = [
        {"text": about(draw, team), "reply": f"Please send the {draw.choice(PARTS)} of case {n} back.",
         "category": draw.choice(("red", "green", "blue", "grey")), "department": team}
        for n, team in enumerate(draw.choices(list(TEAMS), k=500))
    ]  # fmt: skip
    return write_rows(folder / "unlearnable.csv", rows)


STRANGERS: dict[str, Callable[[Path], Path]] = {
    make.__name__: make
    for make in (
        public_desk, anonymised, two_languages, chatty, german_excel, itil_queue, french_desk, ctime_log, multilingual,
        numbered_labels, marked_csv, excel_serials, many_intents, chats, service_chats, turn_rows, listed_parquet,
        french_hours, unlearnable,
    )
}  # fmt: skip
"""Name -> writes the file into a folder and returns its path."""

COLUMNS: dict[str, dict[str, str]] = {
    "public_desk": {
        "ticket_id": "Ticket ID",
        "customer_id": "Customer Email",
        "product": "Product Purchased",
        "body": "Ticket Description",
        "reply": "Resolution",
        "category": "Ticket Type",
    },
    "anonymised": {
        "ticket_id": "id",
        "created_at": "created_at",
        "body": "message",
        "reply": "reply",
        "category": "queue",
    },
    "itil_queue": {
        "subject": "subject",
        "body": "body",
        "reply": "answer",
        "category": "queue",
        "priority": "priority",
    },
    "german_excel": {
        "ticket_id": "Vorgangsnr.",
        "created_at": "Eingangsdatum",
        "customer_id": "Kundennr.",
        "subject": "Betreff",
        "body": "Nachricht",
        "category": "Abteilung",
    },
    "french_desk": {
        "ticket_id": "numéro",
        "created_at": "date d'ouverture",
        "subject": "objet",
        "body": "demande",
        "category": "service",
        "priority": "urgence",
    },
    "ctime_log": {"created_at": "logged", "body": "text", "category": "intent"},
    "multilingual": {
        "subject": "subject",
        "body": "body",
        "reply": "answer",
        "category": "queue",
        "priority": "priority",
    },
    "numbered_labels": {"subject": "title", "body": "body", "category": "category", "priority": "urgency"},
    "marked_csv": {"ticket_id": "Id", "created_at": "Opened", "body": "Text", "category": "Department"},
    "excel_serials": {
        "ticket_id": "Case",
        "created_at": "Received",
        "customer_id": "Account",
        "body": "Message",
        "category": "Team",
    },
    "many_intents": {"body": "text", "category": "intent"},
    "chats": {"messages": "utterances", "ticket_id": "conversation_id"},
    "service_chats": {"messages": "turns", "ticket_id": "dialogue_id"},
    "turn_rows": {"thread_id": "conversation", "body": "text", "category": "intent"},
    "listed_parquet": {
        "created_at": "Created",
        "subject": "Subject",
        "body": "Body",
        "reply": "Answer",
        "category": "Queue",
    },
    "french_hours": {
        "ticket_id": "numero",
        "created_at": "date d'ouverture",
        "body": "demande",
        "reply": "réponse",
        "category": "service",
        "priority": "urgence",
    },
    "unlearnable": {"body": "text", "reply": "reply", "category": "department"},
}
"""What each column of a stranger's file is taken for; the other files are about curation."""
