"""Write the tickets of an mbox as JSON lines: each mail of a customer, and the first mail of ours that answers it.

    python -m tasks.start.mail inbox.mbox @acme.example > tickets.jsonl

`tunegate init` reads no mail, because only its owner knows which addresses are the desk's; its hint names this command.
"""

import json
import mailbox
import sys
from collections.abc import Iterator
from contextlib import closing
from email import message_from_binary_file, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any, cast

_TEXTS = ("plain", "html")


def tickets_of(path: Path, ours: str) -> Iterator[dict[str, str | None]]:
    """The rows: customers' mails that were answered, in the order of the file.

    Args:
        ours: Address of the desk, or a part of it that only its own addresses have: `@acme.example`.
    """
    mails: dict[str, EmailMessage] = {}
    answers: dict[str, EmailMessage] = {}
    with closing(mailbox.mbox(path, _parsed, create=False)) as box:
        for each in box:
            mail = cast(EmailMessage, each)
            if ours.casefold() in _header(mail, "From").casefold():
                answers.setdefault(_header(mail, "In-Reply-To"), mail)
            else:
                mails.setdefault(_header(mail, "Message-ID"), mail)
    for name, asked in mails.items():
        if name and name in answers:
            yield {
                "ticket_id": name,
                "customer_id": _header(asked, "From"),
                "created_at": _header(asked, "Date") and _time(asked),
                "subject": _header(asked, "Subject"),
                "body": _text(asked),
                "reply": _text(answers[name]),
            }


def _parsed(file: Any) -> mailbox.mboxMessage:
    return cast(mailbox.mboxMessage, message_from_binary_file(file, policy=policy.default))


def _header(mail: EmailMessage, name: str) -> str:
    """The header's text; empty if it is missing, or if Python cannot read it."""
    try:
        return str(mail[name] or "").strip()
    except (ValueError, IndexError, AttributeError, LookupError):
        return ""


def _time(mail: EmailMessage) -> str | None:
    time = mail["Date"].datetime
    return time.isoformat() if time else None


def _text(mail: EmailMessage) -> str | None:
    """The plain text, or else the HTML; None for neither, and for an unknown charset."""
    try:
        part = mail.get_body(_TEXTS)
        return str(part.get_content()).strip() if part is not None else None
    except (LookupError, ValueError):
        return None


if __name__ == "__main__":
    for row in tickets_of(Path(sys.argv[1]), sys.argv[2]):
        sys.stdout.write(f"{json.dumps(row, ensure_ascii=False)}\n")
