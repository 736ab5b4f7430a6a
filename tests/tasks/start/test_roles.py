"""Which columns of strangers' files are taken for what."""

from pathlib import Path

import pytest

from tasks.start.propose import Proposal, propose_pipeline
from tests.support import strangers
from tests.tasks.start.conftest import WriteCsv, ticket


def proposed(path: Path) -> Proposal:
    return propose_pipeline(path, name=None, root=path.parent)


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        (
            "german_excel",
            {
                "ticket_id": "Vorgangsnr.",
                "created_at": "Eingangsdatum",
                "customer_id": "Kundennr.",
                "subject": "Betreff",
                "body": "Nachricht",
                "category": "Abteilung",
            },
        ),
        (
            "french_desk",
            {
                "ticket_id": "num\u00e9ro",
                "created_at": "date d'ouverture",
                "subject": "objet",
                "body": "demande",
                "category": "service",
                "priority": "urgence",
            },
        ),
        ("ctime_log", {"created_at": "logged", "body": "text", "category": "intent"}),
    ],
)
def test_columns_in_other_languages_and_times_by_their_values(
    name: str, columns: dict[str, str], tmp_path: Path
) -> None:
    found = proposed(strangers.STRANGERS[name](tmp_path)).roles.found
    assert {str(role.column): role.name for role in found} == columns


def test_the_label_is_the_teams_queue_and_the_other_columns_are_named(tmp_path: Path) -> None:
    proposal = proposed(strangers.itil_queue(tmp_path))
    assert proposal.routing is not None
    assert proposal.routing.name == "queue"
    (other,) = proposal.roles.other_labels
    assert other.startswith("type: ")
    assert "could be a label (4 different values in 600 rows)" in other


def test_a_time_is_guessed_only_where_one_column_has_times_of_the_writing(write_csv: WriteCsv) -> None:
    def rows(**times: str) -> list[dict[str, str]]:
        plain = [{name: value for name, value in ticket(n).items() if name != "Created"} for n in range(120)]
        return [
            {**row, **{name: form.format(1 + n % 28) for name, form in times.items()}} for n, row in enumerate(plain)
        ]

    def time_of(name: str, **times: str) -> tuple[str, bool] | None:
        role = proposed(write_csv(rows(**times), name)).roles.of("created_at")
        return None if role is None else (role.name, role.guessed)

    day = "2026-03-{:02d}T10:00:00"
    assert time_of("one.csv", Zeitpunkt=day) == ("Zeitpunkt", True)
    assert time_of("due.csv", **{"Due Date": day}) is None
    assert time_of("two.csv", Zeitpunkt=day, Andere=day) is None
    assert time_of("numbers.csv", Zaehler="17000000{:02d}") is None
