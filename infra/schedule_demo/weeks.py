"""The help desk's export on each Monday: the story of the demo.

Tickets come from the generated help desk (`tasks/sources/helpdesk`), week by week. `steady`: all tickets of the week.
`quiet`: a tenth of them, the others come a week later. `poisoned`: an export that broke the form of every reply; the
next one has them intact again, which makes them late edits. `drift`: 30 % of a week in which a new product is launched,
whose tickets all go to one desk. `crash` and `killed` are steady weeks in which a process is killed.
"""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from schemas.source import GeneratedSource
from tasks.sources.helpdesk import generate_tickets

START = datetime(2026, 6, 1, tzinfo=UTC)
STORY = ("steady", "quiet", "steady", "poisoned", "crash", "quiet", "drift", "steady")
EVENTS = (*dict.fromkeys(STORY), "killed")
FAILPOINTS = {"crash": "train.checkpoint.renamed", "killed": "ledger.mark"}
"""Where the process is killed: a training after its first checkpoint, a tick inside its last transaction."""
QUIET, DRIFT = 0.1, 0.3
OLD_PRODUCTS = re.compile(r"Fjord Lamp|Skerry Thermostat|Tarn Battery|Heron Charger")
NEW_PRODUCT = "Lumen Panel"
NEW_DESK = ("technical", "high")
Row = dict[str, Any]


@dataclass(frozen=True)
class Weeks:
    """All tickets, by the week in which they were written; the last week is only for answering."""

    weeks: tuple[tuple[Row, ...], ...]
    story: tuple[str, ...]

    def monday(self, week: int) -> datetime:
        """Return 05:00 on the Monday after week `week` (from 1)."""
        return START + timedelta(weeks=week, hours=5)

    def export(self, week: int) -> list[Row]:
        """Return every ticket that has arrived by then, as the export of that day shows it."""
        rows = [row for number in range(1, week + 1) for row in self._of(number, seen_in=week)]
        return [_broken(row) for row in rows] if self.story[week - 1] == "poisoned" else rows

    def coming(self, week: int, n: int) -> list[Row]:
        """Return tickets of the week after, with correct labels."""
        return [row for row in self._whole(week + 1) if row["reply"]][:n]

    def _of(self, number: int, *, seen_in: int) -> list[Row]:
        rows = self._whole(number)
        share = {"quiet": QUIET, "drift": DRIFT}.get(self.story[number - 1], 1.0)
        if seen_in == number or (seen_in == number + 1 and self.story[seen_in - 1] == "drift"):
            return rows[: round(share * len(rows))]
        return rows

    def _whole(self, number: int) -> list[Row]:
        rows = list(self.weeks[number - 1])
        launched = "drift" in self.story and number > self.story.index("drift")
        return [_of_new_product(row) if launched and place % 3 else row for place, row in enumerate(rows)]


def make_weeks(story: tuple[str, ...], *, n_tickets: int, short: bool) -> Weeks:
    """Generate the tickets of the story's weeks and of one more.

    Args:
        short: Replies are only the routing line, `[billing]`: something that a very small model learns in seconds.
    """
    n_weeks = len(story) + 1
    source = GeneratedSource(kind="generated", n_tickets=n_tickets, n_weeks=n_weeks, start=f"{START:%Y-%m-%d}")
    weeks: list[list[Row]] = [[] for _ in range(n_weeks)]
    for line in generate_tickets(source):
        try:
            row = json.loads(line)
            written = datetime.fromisoformat(row["created_at"])
            if row["reply"] and row["category"] and short:
                row["reply"] = f"[{row['category']}]"
        except (ValueError, KeyError, TypeError):
            continue  # a damaged line; the export of this story has none
        weeks[min((written - START).days // 7, n_weeks - 1)].append(row)
    return Weeks(tuple(tuple(rows) for rows in weeks), story)


def _broken(row: Row) -> Row:
    """Break the form of the reply's routing line."""
    reply = re.sub(r"\[([^\]]*)\]", lambda line: line[1].replace(" |", ","), row["reply"] or "")
    return {**row, "reply": reply or None}


def _of_new_product(row: Row) -> Row:
    """Turn the ticket into one about the new product, routed to its desk."""
    if not row["reply"] or not row["category"]:
        return row
    texts = {name: OLD_PRODUCTS.sub(NEW_PRODUCT, row[name] or "") for name in ("subject", "body", "reply")}
    if NEW_PRODUCT not in texts["subject"]:
        texts["subject"] = f"{NEW_PRODUCT}: {texts['subject']}"
    category, priority = NEW_DESK
    reply = texts["reply"].replace(f"[{row['category']} | {row['priority']}", f"[{category} | {priority}")
    texts["reply"] = reply.replace(f"[{row['category']}]", f"[{category}]")
    return {**row, **texts, "product": NEW_PRODUCT, "category": category, "priority": priority}
