"""Which roles a file's columns get, on which evidence, and the settings that follow from its size."""

import csv
import gzip
import json
import re
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.curation_steps import PATTERN_TYPES, LanguageStep, RedactStep
from schemas.diagnostics import read_source
from schemas.errors import ConfigError, DataError
from schemas.load import PipelineFile, load_file
from schemas.source import FilesSource
from schemas.tables import TicketColumn
from schemas.yaml_text import read_tree
from tasks.assess.fields import FieldPattern
from tasks.curate.rows import read_rows
from tasks.curate.split import split_tickets
from tasks.sources.readers.layouts import CANONICAL
from tasks.start.pipeline_yaml import flow, write_pipeline
from tasks.start.propose import Proposal, choose_sizes, gate_of, propose_pipeline
from tasks.start.roles import KNOWN, plain_form
from tests.support.synced import extract
from tests.tasks.start.conftest import Row, WriteCsv, ticket

ANSWERS_PER_MINUTE = 100.0
MAPPED = {
    "ticket_id": "Ticket ID", "created_at": "Created", "customer_id": "Requester", "subject": "Title",
    "body": "Message", "reply": "Agent Reply", "category": "Issue Type",
}  # fmt: skip


def proposed(path: Path) -> Proposal:
    return propose_pipeline(path, name=None, root=path.parent)


def columns(proposal: Proposal) -> dict[str, str]:
    return {str(role.column): role.name for role in proposal.roles.found}


def loaded(proposal: Proposal, folder: Path) -> tuple[str, PipelineFile]:
    """The text of the proposed file, and the loaded pipeline."""
    text = write_pipeline(proposal)
    (folder / "pipelines.yaml").write_text(text)
    return text, load_file(folder / "pipelines.yaml")


def test_columns_are_recognised_by_name_and_confirmed_by_their_values(write_csv: WriteCsv, tmp_path: Path) -> None:
    proposal = proposed(write_csv(map(ticket, range(600))))
    assert columns(proposal) == MAPPED
    assert proposal.routing is not None
    evidence = {role.column: role.evidence for role in proposal.roles.found}
    assert evidence["created_at"] == "100 % of 600 values parse as ISO 8601 or seconds since 1970"
    assert evidence["category"] == "3 different values in 600 rows"
    assert "600 different values in 600 of 600 rows" in evidence["ticket_id"]
    left = "\n".join(proposal.roles.left_out)
    assert "Customer Email: personal data (e-mail in 100 %)" in left
    assert "Notes: empty in every sampled row" in left
    assert "lang: 1 languages" in left or "lang: " in left
    text, file = loaded(proposal, tmp_path)
    spec = file.get("tickets")
    assert spec.evaluate.routing_field == "category"
    assert spec.train.prompt.answer == "[{category}]\n{reply}"
    assert [step.uses for step in spec.curate.steps] == [
        "redact", "language", "rule", "rule", "length", "quality", "dedup",
    ]  # fmt: skip
    assert "# 100 % of 600 values parse as ISO 8601" in text
    assert max(map(len, (line for line in text.splitlines() if "base_model" not in line))) <= 120


def test_brackets_of_a_reply_do_not_spoil_the_label_of_its_answer(write_csv: WriteCsv, tmp_path: Path) -> None:
    """Redaction leaves such: [EMAIL_1]."""
    _, file = loaded(proposed(write_csv(map(ticket, range(90)))), tmp_path)
    fields = FieldPattern(file.get("tickets").evaluate.fields or "")
    answer = "[billing]\nPlease write to [EMAIL_1]."
    assert fields.score(answer, {"category": "billing"}) == {"exact": 1.0, "format": 1.0, "field_category": 1.0}
    assert fields.score(f"[returns] {answer}", {"category": "billing"})["field_category"] == 0


def test_one_time_for_all_tickets_is_no_time(write_csv: WriteCsv, tmp_path: Path) -> None:
    text, file = loaded(proposed(write_csv({**ticket(n), "Created": "2026-03-04"} for n in range(300))), tmp_path)
    assert "Created: one value in every row" in text
    assert file.get("tickets").split.by_time is False
    assert file.get("tickets").train.max_examples > 100


def test_no_ticket_text_is_written(write_csv: WriteCsv, tmp_path: Path) -> None:
    rows = [ticket(number) for number in range(200)]
    text, _ = loaded(proposed(write_csv(rows)), tmp_path)
    words = {word for row in rows for name in ("Title", "Message", "Agent Reply", "Customer Email", "Requester")
             for word in re.findall(r"\w{6,}", row[name].lower())}  # fmt: skip
    ours = set(re.findall(r"\w{6,}", text.lower()))
    assert words & ours <= {"please", "number"}
    assert "xylophone" in words
    assert not ours & {"billing", "delivery", "returns"}


def test_a_time_that_does_not_parse_is_not_a_time(write_csv: WriteCsv, tmp_path: Path) -> None:
    rows = [{**ticket(number), "Created": f"{1 + number % 28}.{1 + number % 12}.2026 at noon"} for number in range(100)]
    proposal = proposed(write_csv(rows))
    assert "created_at" not in columns(proposal)
    assert "Created: not a created_at: 0 % of 100 values parse" in "\n".join(proposal.roles.left_out)
    text, file = loaded(proposal, tmp_path)
    assert file.get("tickets").split.by_time is False
    assert "CHECK: no column is a time" in text


EUROPEAN = ("Vorgang", "Angelegt am", "Frage", "Antwort", "Kategorie", "Bewertung")


def european(number: int) -> tuple[str, ...]:
    """A row as Excel writes it in Germany: its day has two meanings until the 13th."""
    label = ("Rechnung", "Versand; Lager")[number % 2]
    return (
        f"V{number}", f"{1 + number % 28:02}.{1 + number % 12:02}.2026 0{number % 10}:30",
        f"Grüße, die {number}. Bestellung für 4,99 € fehlt noch immer, bitte helfen Sie mir.",
        f"Das tut uns leid; wir prüfen die Bestellung Nummer {number} und melden uns.", label, f"{number % 5},5",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("encoding", "delimiter", "first", "sniffed"),
    [
        ("cp1252", ";", "", "windows-1252"),
        ("cp1252", ";", "sep=;\r\n", "windows-1252"),
        ("utf-8-sig", ";", "", "utf-8"),
        ("utf-8", "|", "", "utf-8"),
        ("cp1252", ",", "", "windows-1252"),
        ("cp1252", "\t", "", "windows-1252"),
    ],
)
def test_an_export_from_a_european_office_is_read(
    encoding: str, delimiter: str, first: str, sniffed: str, tmp_path: Path
) -> None:
    """Semicolons, windows-1252, dd.mm.yyyy and decimal commas: the dates are no labels, and no letter is lost."""
    with (tmp_path / "tickets.csv").open("w", newline="", encoding=encoding) as stream:
        stream.write(first)
        csv.writer(stream, delimiter=delimiter).writerows([EUROPEAN, *map(european, range(120))])
    proposal = proposed(tmp_path / "tickets.csv")
    assert columns(proposal) == {
        "ticket_id": "Vorgang", "created_at": "Angelegt am", "body": "Frage", "reply": "Antwort",
        "category": "Kategorie", "rating": "Bewertung",
    }  # fmt: skip
    text, file = loaded(proposal, tmp_path)
    source = file.get("tickets").source
    assert isinstance(source, FilesSource)
    assert (source.csv.encoding, source.csv.delimiter or ",", source.csv.decimal) == (sniffed, delimiter, ",")
    assert source.time_format == "%d.%m.%Y %H:%M"
    assert "by_time: false" not in text
    table = extract(source, tmp_path)
    rows = {row["ticket_id"]: row for row in read_rows(table.tickets).to_pylist()}
    assert (len(rows), table.rows.n_quarantined) == (120, 0)
    assert rows["V3"]["created_at"] == datetime(2026, 4, 4, 3, 30)
    assert rows["V3"]["body"] == european(3)[2]
    assert (rows["V3"]["rating"], rows["V3"]["category"]) == (3.5, "Versand; Lager")


@pytest.mark.parametrize(
    ("first", "created", "time_format"),
    [
        ("%d.%m.%Y", "%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M"),
        ("%d/%b/%y %H:%M", "%d/%b/%y %H:%M", "%d/%b/%y %H:%M"),
        ("%d.%m.%Y", "%d/%b/%y %I:%M %p", "%d/%b/%y %I:%M %p"),
        ("%d.%m.%Y", "%Y-%m-%d", None),
        ("%d.%m.%Y", "%b %d, %Y %I:%M %p", "%b %d, %Y %I:%M %p"),
        ("%d.%m.%Y", "%a %b %d %H:%M:%S +0000 %Y", "%a %b %d %H:%M:%S %z %Y"),
    ],
)
def test_times_are_read_in_the_format_of_their_own_column(
    first: str, created: str, time_format: str | None, write_csv: WriteCsv, tmp_path: Path
) -> None:
    def row(n: int) -> Row:
        day = datetime(2026, 1 + n % 12, 1 + n % 28, n % 24)
        return {"Due": f"{day:{first}}", **ticket(n), "Created": f"{day:{created}}", "Updated": f"{day:{first}}"}

    proposal = proposed(write_csv(map(row, range(120))))
    text, file = loaded(proposal, tmp_path)
    source = file.get("tickets").source
    assert isinstance(source, FilesSource)
    assert source.time_format == (time_format or first)
    assert columns(proposal)["created_at"] == "Created"
    is_left_out = time_format not in (None, first)
    assert ("updated_at" not in columns(proposal)) == is_left_out
    assert (f"left out: Updated: no updated_at: its times are {first}, those of" in text) == is_left_out
    table = extract(source, tmp_path)
    assert (table.rows.n_out, table.rows.n_quarantined) == (120, 0)


def test_a_column_of_times_in_two_formats_is_read_if_one_of_them_is_iso(write_csv: WriteCsv, tmp_path: Path) -> None:
    def row(n: int) -> Row:
        day = datetime(2026, 1 + n % 12, 1 + n % 28, n % 24)
        return {**ticket(n), "Created": f"{day:{'%d.%m.%Y %H:%M' if n % 3 else '%Y-%m-%dT%H:%M:%S'}}"}

    proposal = proposed(write_csv(map(row, range(120))))
    created = proposal.roles.of("created_at")
    assert created is not None
    assert created.evidence == "100 % of 120 values parse as %d.%m.%Y %H:%M or ISO 8601"
    _, file = loaded(proposal, tmp_path)
    assert proposal.time_format == "%d.%m.%Y %H:%M"
    table = extract(file.get("tickets").source, tmp_path)
    assert (table.rows.n_out, table.rows.n_quarantined) == (120, 0)


def test_a_named_time_that_cannot_be_read_is_refused_with_the_formats_that_can(write_csv: WriteCsv) -> None:
    path = write_csv({**ticket(n), "Created": f"day {n}"} for n in range(40))
    with pytest.raises(ConfigError) as caught:
        propose_pipeline(path, name=None, root=path.parent, named={"created_at": "Created"})
    assert "write ISO 8601 or seconds since 1970" in str(caught.value.hint)


def test_days_and_months_that_cannot_be_distinguished_are_not_guessed(write_csv: WriteCsv) -> None:
    rows = [{**ticket(n), "Created": f"{1 + n % 12:02}/{1 + n % 11:02}/2026", "Issue Type": None} for n in range(100)]
    proposal = proposed(write_csv([{**row, "Label": f"{1 + n % 3}.{1 + n % 12}.2026"} for n, row in enumerate(rows)]))
    assert proposal.routing is None, "dates are no labels"
    left = "\n".join(proposal.roles.left_out)
    assert "CHECK: `time_format` may be %d/%m/%Y or %m/%d/%Y" in left


def test_repeated_ids_are_not_ids(write_csv: WriteCsv) -> None:
    rows = [{**ticket(number), "Ticket ID": f"K-{number // 2}"} for number in range(100)]
    proposal = proposed(write_csv(rows))
    assert "ticket_id" not in columns(proposal)
    assert "50 different values in 100 of 100 rows" in "\n".join(proposal.roles.left_out)


def test_without_known_names_only_unambiguous_roles_are_guessed_and_marked(write_csv: WriteCsv, tmp_path: Path) -> None:
    rows = [{"c1": ticket(number)["Message"], "c2": ticket(number)["Issue Type"]} for number in range(100)]
    text, file = loaded(proposed(write_csv(rows)), tmp_path)
    assert file.get("tickets").train.prompt.answer == "[{category}]"
    assert text.count("CHECK: by its values, not its name") == 2
    both = [{"c1": row["Message"], "c2": row["Agent Reply"]} for row in map(ticket, range(100))]
    with pytest.raises(ConfigError, match="TG0167"):
        proposed(write_csv(both))


@pytest.mark.parametrize(
    "rows",
    [
        [{"description": f"my xylophone is broken again {number}"} for number in range(40)],  # no replies to learn from
        [{"colour": "red", "size": number} for number in range(40)],  # no text
        [{"2026-01-02": "x", "anne@example.org": "y", "my xylophone, it broke": "z"} for _ in range(40)],  # no header
    ],
)
def test_a_file_without_training_data_is_refused_without_its_text(
    rows: list[dict[str, Any]], write_csv: WriteCsv
) -> None:
    with pytest.raises(ConfigError, match="TG0167") as caught:
        proposed(write_csv(rows))
    assert "xylophone" not in str(caught.value)
    assert "anne" not in str(caught.value)


def test_too_few_tickets_are_refused_and_few_are_reported(write_csv: WriteCsv, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="TG0167"):
        proposed(write_csv(map(ticket, range(12))))
    proposal = proposed(write_csv(map(ticket, range(60))))
    assert not proposal.sizes.gate_works
    text, _ = loaded(proposal, tmp_path)
    flat = " ".join(text.replace("#", " ").split())
    assert re.search(
        r"too little data for a gate: about \d+ held-out tickets .* and below 50 every verdict is HOLD", flat
    )


@pytest.mark.parametrize("sample_rows", [2000, 20])
def test_held_out_tickets_are_those_that_the_split_leaves(
    sample_rows: int, write_csv: WriteCsv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most customers have written before and after the cut; of a large file all rows count, not those examined."""
    monkeypatch.setattr("tasks.start.file_profile.SAMPLE_ROWS", sample_rows)
    proposal = proposed(write_csv(map(ticket, range(200))))
    text, file = loaded(proposal, tmp_path)
    tickets = extract(file.get("tickets").source, tmp_path)
    (tmp_path / "split").mkdir()
    splits = split_tickets(tmp_path / "split", tickets=tickets, split=file.get("tickets").split)
    sizes = proposal.sizes
    assert (sizes.n_held_out, sizes.n_dropped) == (splits.n_test, splits.rows.n_dropped)
    assert sizes.n_held_out < 0.25 * sizes.n_tickets
    assert f"about {sizes.n_held_out} of 200 usable tickets; about {sizes.n_dropped} of customers or threads" in text


def test_sizes_follow_from_the_power_of_the_gate() -> None:
    def sizes(n: int, *, continuous: bool = False) -> Any:
        return choose_sizes(
            n, continuous=continuous, example_chars=900, reply_chars=300, answers_per_minute=ANSWERS_PER_MINUTE
        )

    many, some, few = sizes(5000), sizes(900), sizes(300)
    assert (many.test_fraction, many.n_held_out, many.max_items, many.smallest_loss) == (0.2, 1000, 750, 0.03)
    assert (some.test_fraction, some.max_items, some.smallest_loss) == (0.3, 270, 0.05)
    assert (few.test_fraction, few.n_held_out) == (0.3, 90)
    assert 0.05 < few.smallest_loss <= 0.1
    changes = [gate_of("field_category", each).rules[0].change_threshold for each in (many, some, few)]
    assert [(each.mode, each.margin) for each in changes if each] == [
        ("refresh", 0.0065), ("refresh", 0.0035), ("improve", 0.0),
    ]  # fmt: skip
    assert [gate_of("field_category", each).confidence for each in (many, some, few)] == [0.95, 0.95, 0.97]
    assert not gate_of("field_category", many).power[0].underpowered
    assert not sizes(1000, continuous=True).gate_works
    assert sizes(1100, continuous=True).gate_works


def test_replies_that_the_proposed_steps_drop_do_not_count_as_tickets(write_csv: WriteCsv, tmp_path: Path) -> None:
    said = {0: "-", 1: "Closed.", 2: "Dear {{name}}, we look into it."}
    rows = [{**ticket(n), "Agent Reply": said.get(n % 40, ticket(n)["Agent Reply"])} for n in range(400)]
    proposal = proposed(write_csv(rows))
    assert proposal.sizes.n_tickets == 370
    text, _ = loaded(proposal, tmp_path)
    assert "of 370 usable tickets" in text
    assert "drop_stub_replies: true" in text


def test_copies_do_not_count_as_tickets(write_csv: WriteCsv) -> None:
    rows = [{**ticket(n), **{name: ticket(n % 100)[name] for name in ("Title", "Message")}} for n in range(400)]
    assert proposed(write_csv(rows)).sizes.n_tickets == 100
    near = [{**row, "Title": f"K{n}", "Message": f"{row['Message']} {row['Message']}"} for n, row in enumerate(rows)]
    assert proposed(write_csv(near)).sizes.n_tickets == 100


def test_faulty_rows_are_listed_by_code_and_no_limit_is_raised(write_csv: WriteCsv, tmp_path: Path) -> None:
    path = write_csv(map(ticket, range(200)))
    lines = path.read_text().splitlines()
    lines[10:40] = [line + ",one,too,many" for line in lines[10:40]]
    path.write_text("\n".join(lines) + "\n")
    text, file = loaded(proposed(path), tmp_path)
    assert file.get("tickets").table.fail_above == 0.05
    assert "CHECK: about 15.0 % of the rows are faulty: TG02" in text
    assert "A run stops at the usual 5 %" in text


@pytest.mark.parametrize("long", ["", "far too long " * 2000])
def test_rows_that_validate_would_refuse_count_as_faulty(long: str, write_csv: WriteCsv, tmp_path: Path) -> None:
    rows = [{**ticket(n), "Message": long if n % 18 == 0 else ticket(n)["Message"]} for n in range(180)]
    proposal = proposed(write_csv(rows))
    assert (proposal.stops, proposal.faulty_percent, proposal.sizes.n_tickets) == (True, "5.6 %", 170)
    text, _ = loaded(proposal, tmp_path)
    assert "CHECK: about 5.6 % of the rows are faulty: TG021" in text
    reason = "longer than 20,000 characters" if long else "required and empty"
    assert f"10 sampled rows: Field body is {reason}." in text
    assert "A run stops at the usual 5 %" in text


@pytest.mark.parametrize(("n_empty", "is_required"), [(5, True), (20, False)])
def test_a_time_is_required_only_if_nearly_all_rows_have_one(
    n_empty: int, is_required: bool, write_csv: WriteCsv, tmp_path: Path
) -> None:
    rows = [{**ticket(n), "Created": "" if n < n_empty else ticket(n)["Created"]} for n in range(200)]
    proposal = proposed(write_csv(rows))
    text, file = loaded(proposal, tmp_path)
    assert ("created_at" in file.get("tickets").table.required) == is_required
    assert ("# CHECK: 10 % of the rows have no time, and a split by time drops them" in text) != is_required
    assert f"parse as ISO 8601 or seconds since 1970; {n_empty} of 200 rows have none" in text
    assert (proposal.stops, proposal.sizes.n_tickets) == (False, 200 - n_empty)


def test_languages_personal_data_and_the_companys_address_are_found_all_over_the_file(
    write_csv: WriteCsv, tmp_path: Path
) -> None:
    """Short Chinese bodies; addresses in late replies only, and our own in all of them."""
    rows = [
        {
            "body": "我的包裹在哪里，已经三周了" + str(n) if n % 6 else f"Where is parcel {n}?",
            "reply": f"Please write to help@shop.example about {n}."
            + (f" Ann has ann{n}@mail.example" if n > 400 else ""),
            "label": ("delivery", "returns")[n % 2],
        }
        for n in range(600)
    ]
    text, file = loaded(proposed(write_csv(rows)), tmp_path)
    redact, language = file.get("tickets").curate.steps[:2]
    assert isinstance(redact, RedactStep)
    assert redact.keep == ("help@shop.example",)
    assert "personal data in 600 tickets searched: email in 600" in text
    assert "ann" not in text.lower().replace("cannot", "")
    assert isinstance(language, LanguageStep)
    assert language.keep in ((), ("zh",))
    few = [
        {**row, "body": f"Where is parcel {n} please, it is late" if n < 4 else f"?? {n} 40-{n} !"}
        for n, row in enumerate(rows)
    ]
    text, file = loaded(proposed(write_csv(few)), tmp_path)
    assert "too few to leave any language out" in " ".join(text.replace("#", " ").split())


def test_names_are_proposed_where_greetings_show_them_and_else_said_to_stay(
    write_csv: WriteCsv, tmp_path: Path
) -> None:
    rows = [
        {
            "body": f"Where is parcel {n}? It is late.",
            "reply": f"Parcel {n} left the depot this morning and arrives by noon.",
            "label": ("delivery", "returns")[n % 2],
        }
        for n in range(200)
    ]
    text, file = loaded(proposed(write_csv(rows)), tmp_path)
    redact = file.get("tickets").curate.steps[0]
    assert isinstance(redact, RedactStep)
    assert (redact.names, "name" in redact.types) == (None, False)
    assert "names of people stay: only `names` replaces them" in " ".join(text.replace("#", " ").split())
    signed = [
        {**row, "body": f"{row['body']}\n\nKind regards\nAnn Lee" if n % 9 else row["body"]}
        for n, row in enumerate(rows)
    ]
    text, file = loaded(proposed(write_csv(signed)), tmp_path)
    redact = file.get("tickets").curate.steps[0]
    assert isinstance(redact, RedactStep)
    assert redact.names is not None
    assert (redact.names.mode, redact.types) == ("rules", (*PATTERN_TYPES, "name"))
    assert "CHECK: names of people in 177" in " ".join(text.replace("#", " ").split())
    assert "Lee" not in text


@pytest.mark.parametrize("reply", ["<p>We are sorry, case {}.</p>", "Sorry&nbsp;for {}", "It&#39;s {}", "{} &amp; co"])
def test_html_is_reported(write_csv: WriteCsv, tmp_path: Path, reply: str) -> None:
    rows = [{**ticket(n), "Agent Reply": reply.format(n)} for n in range(100)]
    text, _ = loaded(proposed(write_csv(rows)), tmp_path)
    assert "CHECK: 100 % of the rows contain HTML tags" in text


def test_plain_text_is_not_taken_for_html(write_csv: WriteCsv, tmp_path: Path) -> None:
    assert "HTML" not in loaded(proposed(write_csv(map(ticket, range(100)))), tmp_path)[0]


def test_other_formats_and_compression_are_read_alike(write_csv: WriteCsv, tmp_path: Path) -> None:
    rows = [ticket(number) for number in range(120)]
    plain = write_csv(rows)
    packed = tmp_path / "packed.csv.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    table = tmp_path / "table.parquet"
    pq.write_table(pa.Table.from_pylist(rows), table)
    for path in (packed, table):
        assert columns(proposed(path)) == MAPPED
    texts = {"Message", "Agent Reply"}  # some writers leave text as bytes
    schema = pa.schema([(name, pa.binary() if name in texts else pa.string()) for name in rows[0]])
    raw = [{name: value.encode() if name in texts else value for name, value in row.items()} for row in rows]
    pq.write_table(pa.Table.from_pylist(raw, schema), table)
    assert columns(proposed(table)) == MAPPED


def test_a_large_file_is_sampled_evenly(write_csv: WriteCsv) -> None:
    rows = [{**ticket(number), "Issue Type": "late" if number > 9000 else "early"} for number in range(10_000)]
    proposal = proposed(write_csv(rows))
    assert proposal.profile.n_rows == 10_000
    assert 1800 <= proposal.profile.n_sampled < 4000
    assert proposal.profile.columns["Issue Type"].n_distinct == 2


def test_nested_help_desk_rows_are_recognised(write_jsonl: WriteCsv, tmp_path: Path) -> None:
    def talk(number: int) -> dict[str, Any]:
        row = ticket(number)
        return {
            "id": number, "subject": row["Title"], "created_at": row["Created"], "requester_id": number % 40,
            "description": row["Message"], "type": row["Issue Type"], "priority": "high" if number % 2 else "low",
            "via": {"channel": "mail" if number % 5 else "web"},
            "comments": [
                {"body": row["Message"], "public": True},
                {"body": row["Agent Reply"], "public": number % 10 != 0},
            ],
        }  # fmt: skip

    proposal = proposed(write_jsonl(map(talk, range(150))))
    assert "Zendesk" in proposal.roles.summary
    found = columns(proposal)
    assert (found["body"], found["reply"], found["channel"]) == ("description", "comments[1].body", "via.channel")
    reply = proposal.roles.of("reply")
    assert reply is not None
    assert "90 % of 150 have public true" in reply.evidence
    loaded(proposal, tmp_path)


@pytest.mark.parametrize("n_own", [0, 20])
def test_an_answer_that_the_customer_wrote_is_counted(n_own: int, write_jsonl: WriteCsv, tmp_path: Path) -> None:
    """A comment of Zendesk is public whoever wrote it; some customers send their first one twice."""

    def talk(n: int) -> Row:
        own = n < n_own
        comments = [
            {"body": ticket(n)["Message"], "public": True, "author_id": n % 40},
            {
                "body": ticket(n)["Message" if own else "Agent Reply"],
                "public": True,
                "author_id": n % 40 if own else 99,
            },
        ]
        return {"id": n, "requester_id": n % 40, "created_at": ticket(n)["Created"], "comments": comments}

    text = " ".join(loaded(proposed(write_jsonl(map(talk, range(100)))), tmp_path)[0].replace("#", " ").split())
    wrote = f"CHECK: in {n_own} of 100 rows the customer wrote it (author_id is requester_id)"
    echoes = f"CHECK: in {n_own} of 100 tickets the reply is the customer's own text"
    assert (wrote in text, echoes in text) == (n_own > 0, n_own > 0)


def test_intercom_and_freshdesk_are_recognised(write_jsonl: WriteCsv) -> None:
    def intercom(number: int) -> dict[str, Any]:
        row = ticket(number)
        part = {"body": row["Agent Reply"], "author": {"type": "admin"}}
        return {
            "id": str(number), "created_at": 1_780_000_000 + number,
            "source": {"type": "email", "subject": row["Title"], "body": row["Message"], "author": {"id": number % 9}},
            "conversation_parts": {"conversation_parts": [part]},
        }  # fmt: skip

    def freshdesk(number: int) -> dict[str, Any]:
        row = ticket(number)
        return {
            "id": number, "requester_id": number % 9, "created_at": row["Created"], "type": row["Issue Type"],
            "description_text": row["Message"], "conversations": [{"body_text": row["Agent Reply"], "incoming": False}],
        }  # fmt: skip

    one = proposed(write_jsonl(map(intercom, range(60)), "a.jsonl"))
    assert columns(one)["reply"] == "conversation_parts.conversation_parts[0].body"
    assert one.roles.of("created_at") is not None
    two = proposed(write_jsonl(map(freshdesk, range(60)), "b.jsonl"))
    assert (two.roles.shape, columns(two)["reply"]) == ("ticket", "conversations[0].body_text")


SHAPES = {
    "messages": lambda q, a: {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]},
    "sharegpt": lambda q, a: {"conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]},
    "alpaca": lambda q, a: {"instruction": q, "input": "", "output": a},
    "prompt_completion": lambda q, a: {"prompt": q, "completion": a},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_conversations_of_every_shape_are_recognised(shape: str, write_jsonl: WriteCsv, tmp_path: Path) -> None:
    rows = [SHAPES[shape](ticket(n)["Message"], ticket(n)["Agent Reply"]) for n in range(80)]
    proposal = proposed(write_jsonl(rows))
    assert proposal.roles.shape == shape
    assert (proposal.tickets.n_usable, proposal.metric) == (80, "chrf")
    _, file = loaded(proposal, tmp_path)
    assert file.get("tickets").evaluate.routing_field is None


def test_a_label_of_conversations_is_named_as_a_slice(write_jsonl: WriteCsv, tmp_path: Path) -> None:
    path = write_jsonl(
        {**SHAPES["messages"](ticket(n)["Message"], ticket(n)["Agent Reply"]), "about": {"topic": f"t{n % 3}"}}
        for n in range(80)
    )
    proposal = propose_pipeline(path, name=None, root=tmp_path, named={"category": "about.topic"})
    assert proposal.routing is None
    assert any("about.topic is a slice and not learned" in each for each in proposal.warnings)
    text, file = loaded(proposal, tmp_path)
    assert "CHECK: about.topic is a slice and not learned" in text
    assert file.get("tickets").evaluate.slices == ("category",)


def test_nested_paths_that_are_not_read_are_listed(write_jsonl: WriteCsv, tmp_path: Path) -> None:
    def row(n: int) -> Row:
        said = [{"body": ticket(n)["Message"]}, {"body": ticket(n)["Agent Reply"]}]
        inner = {"description": ticket(n)["Message"], "priority": ("low", "high")[n % 2], "notes": said, "group_id": n}
        inner[f"anne{n}"] = n
        return {"ticket": inner, "Anne Example": {"at": n}}

    text, _ = loaded(proposed(write_jsonl(map(row, range(60)))), tmp_path)
    assert "left out: paths into nested rows that are not read: ticket.notes, ticket.group_id" in text
    assert "anne" not in text.lower()


def dialog(n: int) -> Row:
    """Two turns in a list, as IBM's tweets have them, of speakers whose names say nothing."""
    said = (f"My phone {n} lost its signal again, what now?", f"Please restart phone {n} and tell us its model.")
    turns = [{"speaker": ("anna", "bert")[place], "message": text} for place, text in enumerate(said)]
    return {"dialogId": n if n % 2 else None, "dialogContent": turns, "meta": {"topic": ("signal", "bill")[n % 2]}}


def test_any_shape_is_read_by_the_paths_that_a_user_names(write_jsonl: WriteCsv, tmp_path: Path) -> None:
    path = write_jsonl(dialog(n) for n in range(120))
    with pytest.raises(ConfigError) as caught:
        proposed(path)
    assert "--body 'dialogContent[0].message' --reply 'dialogContent[1].message'" in str(caught.value.hint)
    with pytest.raises(ConfigError, match=r"no row has a value at 'dialogContent.0..text'") as caught:
        propose_pipeline(path, name=None, root=tmp_path, named={"body": "dialogContent[0].text"})
    assert "texts are in: dialogContent[1].message" in str(caught.value.hint)
    named: dict[TicketColumn, str] = {
        "body": "dialogContent[0].message", "reply": "dialogContent[-1].message", "category": "meta.topic",
        "ticket_id": "dialogId",
    }  # fmt: skip
    proposal = propose_pipeline(path, name=None, root=tmp_path, named=named)
    assert columns(proposal) == {"thread_id" if column == "ticket_id" else column: at for column, at in named.items()}
    evidence = {role.column: role.evidence for role in proposal.roles.found}
    assert "CHECK: no id of a row: 60 different values in 60 of 120 rows; each row gets one" in evidence["thread_id"]
    assert evidence["category"] == "named by you; 2 different values in 120 rows"
    _, file = loaded(proposal, tmp_path)
    assert file.get("tickets").train.prompt.answer == "[{category}]\n{reply}"


def test_data_that_cannot_teach_is_named_with_numbers(write_csv: WriteCsv, tmp_path: Path) -> None:
    """Three texts answer everything, one label has three tickets and the other has the rest, and replies are cut."""
    rows = [
        {**ticket(n), "Agent Reply": f"Text {n % 3} " + "word " * 300, "Issue Type": "rare" if n < 3 else "usual"}
        for n in range(400)
    ]
    proposal = proposed(write_csv(rows))
    collapse, same, rare, cut = proposal.warnings
    assert "3 different replies to 400 tickets" in collapse
    assert "99.2 % of the tickets have the same label" in same
    assert "1 of 2 labels have fewer than 5 tickets" in rare
    assert "about 100 % of the replies are longer than max_new_tokens 256" in cut
    text, _ = loaded(proposal, tmp_path)
    assert "CHECK: 3 different replies to 400 tickets" in " ".join(text.replace("#", " ").split())
    (named,) = proposed(write_csv(map(ticket, range(400)))).warnings
    assert "in 400 of 400 tickets the customer's text has the label's own words" in named
    plain = [{**ticket(n), "Issue Type": "abc"[n % 3] * 4} for n in range(400)]
    assert proposed(write_csv(plain)).warnings == ()


def test_exports_of_freshdesk_and_salesforce_are_recognised_by_their_names(write_csv: WriteCsv) -> None:
    def renamed(names: dict[str, str]) -> Proposal:
        rows = [{names.get(key, key): value for key, value in ticket(n).items()} for n in range(60)]
        return proposed(write_csv([{**row, "Due": row["lang"]} for row in rows]))

    freshdesk = columns(renamed({"Created": "Created time", "Agent Reply": "Last agent reply"}))
    assert (freshdesk["created_at"], freshdesk["reply"]) == ("Created time", "Last agent reply")
    salesforce = columns(renamed({"Created": "Date/Time Opened", "Agent Reply": "First Response"}))
    assert (salesforce["created_at"], salesforce["reply"]) == ("Date/Time Opened", "First Response")
    times = [{**ticket(n), "First Response": ticket(n)["Created"], "Agent Reply": ""} for n in range(60)]
    assert "reply" not in columns(proposed(write_csv(times))), "the time of a response is no reply"


def test_labels_alone_are_learned_only_with_a_word_about_the_other_text(write_csv: WriteCsv, tmp_path: Path) -> None:
    rows = [{"What we said": row.pop("Agent Reply"), **row} for row in map(ticket, range(60))]
    proposal = proposed(write_csv(rows))
    doubt = next(each for each in proposal.warnings if "no answers are learned" in each)
    assert "--reply 'What we said'" in doubt
    assert doubt in " ".join(loaded(proposal, tmp_path)[0].replace("#", " ").split())
    named = propose_pipeline(tmp_path / "tickets.csv", name=None, root=tmp_path, named={"reply": "What we said"})
    assert (named.has_reply, any("no answers" in each for each in named.warnings)) == (True, False)
    for row in rows:
        row["And then"] = row["What we said"][::-1]
    assert not any("no answers" in each for each in proposed(write_csv(rows)).warnings), "two texts: none is offered"


def test_spellings_of_a_label_and_labels_for_none_are_counted(write_csv: WriteCsv, tmp_path: Path) -> None:
    spelt = ("Zinc", "zinc", "ZINC ", "Lead", "n/a", "N/A")
    proposal = proposed(write_csv({**ticket(n), "Issue Type": spelt[n % 6]} for n in range(120)))
    spellings, none = proposal.warnings
    assert "6 labels are 3 if case and blanks do not count" in spellings
    assert "40 of 120 tickets have a label that says there is none" in none
    text = " ".join(loaded(proposal, tmp_path)[0].replace("#", " ").split())
    assert all(f"CHECK: {each}" in text for each in proposal.warnings)
    assert "zinc" not in text.lower()


@pytest.mark.parametrize(
    ("labels", "doubt"),
    [
        (("tin", "tin;lead", "lead"), "30 of 90 tickets have several labels in one, joined by ';'"),
        (("tin, pure", "lead"), None),
        (("tin [pure]", "lead"), "1 of 2 labels have square brackets or line breaks"),
        (("1", "2", "3"), "the labels are numbers, and no prompt says what they mean"),
    ],
)
def test_labels_that_are_several_or_numbers_are_named(
    labels: tuple[str, ...], doubt: str | None, write_csv: WriteCsv
) -> None:
    rows = ({**ticket(n), "Issue Type": labels[n % len(labels)]} for n in range(90))
    warnings = proposed(write_csv(rows)).warnings
    assert len(warnings) == (doubt is not None)
    assert (doubt or "") in "".join(warnings)


def test_what_became_of_a_ticket_is_no_label_by_its_values_alone(write_csv: WriteCsv) -> None:
    rows = [{key: value for key, value in ticket(n).items() if key != "Issue Type"} for n in range(90)]
    for name, is_label in (("Status", False), ("Assignee", False), ("Sender", False), ("Area", True)):
        proposal = proposed(write_csv({**row, name: "xyz"[n % 3]} for n, row in enumerate(rows)))
        assert (proposal.routing is not None) == is_label


def test_a_label_that_nearly_all_tickets_have_is_named_by_its_share(write_csv: WriteCsv) -> None:
    def doubts(one_in: int) -> list[str]:
        rows = ({**ticket(n), "Issue Type": "Lead" if n % one_in == 0 else "Zinc"} for n in range(120))
        return [each for each in proposed(write_csv(rows)).warnings if "the same label" in each]

    [doubt] = doubts(15)
    assert doubt.startswith("93 % of the tickets have the same label")
    assert "at most 0.07" in doubt
    assert doubts(5) == []


@pytest.mark.parametrize(("speaker", "roles"), [("author_role", ("x1", "x2")), ("Von", ("customer", "agent"))])
def test_rows_that_are_messages_are_named_with_the_query_that_joins_them(
    speaker: str, roles: tuple[str, str], write_csv: WriteCsv, tmp_path: Path
) -> None:
    rows = [
        {"ticket_id": f"T{n // 2}", speaker: roles[n % 2], "topic": ticket(n // 2)["Issue Type"],
         "text": ticket(n)["Message" if n % 2 else "Agent Reply"]}
        for n in range(120)
    ]  # fmt: skip
    proposal = proposed(write_csv(rows))
    (doubt,) = proposal.warnings
    assert "rows are messages, not tickets: 120 rows have 60 different values of ticket_id" in doubt
    assert f"{speaker} differs within 60 of the 60 that repeat" in doubt
    text = " ".join(loaded(proposal, tmp_path)[0].replace("#", " ").split())
    assert f"CHECK: {doubt}" in text
    assert "`duckdb` source" in doubt
    alike = [{**row, speaker: roles[n // 2 % 2]} for n, row in enumerate(rows)]
    assert proposed(write_csv(alike)).warnings == (), "a ticket that repeats has one value, as of a label"


@pytest.mark.parametrize("named", [{"author_role": ("x1", "x2")}, {"in_reply_to_id": ("", "T7")}])
def test_messages_without_a_label_are_refused_with_the_query_that_joins_them(
    named: dict[str, tuple[str, str]], write_csv: WriteCsv
) -> None:
    rows = ({"ticket_id": f"T{n // 2}", "text": ticket(n)["Message"], **{key: two[n % 2] for key, two in named.items()}}
            for n in range(120))  # fmt: skip
    with pytest.raises(ConfigError, match="rows are messages, not tickets") as caught:
        proposed(write_csv(rows))
    assert "`duckdb` source" in str(caught.value.hint)


def test_a_ticket_id_that_half_of_the_rows_lack_does_not_cost_them(write_jsonl: WriteCsv, tmp_path: Path) -> None:
    rows = [{"ticket_id": f"T{n}" if n % 2 else None, "body": f"Where is parcel {n}?", "reply": f"On its way, {n}."}
            for n in range(80)]  # fmt: skip
    _, file = loaded(proposed(write_jsonl(rows)), tmp_path)
    table = extract(file.get("tickets").source, tmp_path)
    assert (table.rows.n_out, table.rows.n_quarantined) == (80, 0)


SAID = [{"role": "user", "content": "Where is parcel 7?"}, {"role": "assistant", "content": "Here is parcel 7."}]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "Where is it, {n}?", "chosen": "On its way, {n}.", "rejected": "No {n}."},
         "--body prompt --reply chosen"),
        ({"chosen": SAID, "rejected": SAID}, "--body 'chosen[0].content' --reply 'chosen[-1].content'"),
        ({"messages": [SAID[0], {"role": "tool", "content": "{n}"}, SAID[1]]}, "40 of 40 rows: Message N"),
        ({"text": "user: where is parcel {n}?\nassistant: None\ntool: {n}"}, "rows with tool calls are not trained on"),
        ({"messages": [{"inbound": 1, "text": "Where is parcel 7?"}, {"inbound": 0, "text": "Here it is, {n}."}]},
         "--body 'messages[0].text' --reply 'messages[1].text'"),
        ({"text": "Where is parcel 7?", "label": True}, "(label: one value in every row)"),
        ({"question": "Where is my parcel?", "answer": "Parcel {n} is here."}, "(question: one value in every row)"),
        ({"created_at": "2026-01-02 10:00 EST", "body": "Where is parcel 7?", "reply": "It is here."}, "rename it in"),
        ({"fields": {"summary": "My parcel 7", "description": "Where is parcel 7?", "comment": "Here it is: {n}."}},
         "--body fields.description --reply fields.comment"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_read_as_they_are_are_named_with_what_to_do(
    row: Row, message: str, write_jsonl: WriteCsv
) -> None:
    text = json.dumps(row)
    rows = [json.loads(text.replace("{n}", str(n)).replace("parcel 7", f"parcel {n}")) for n in range(40)]
    with pytest.raises(ConfigError, match="TG0167") as caught:
        proposed(write_jsonl(rows))
    assert message in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(("name", "command"), [("export.json", "tickets.json"), ("tickets.json", "rows.json")])
def test_rows_wrapped_in_an_object_are_named_with_the_command_that_unwraps_them(
    name: str, command: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_text(json.dumps({"data": {"tickets": [ticket(n) for n in range(40)], "page": {"n": 1}}}))
    with pytest.raises(ConfigError, match=r"a list of 40 rows in `data\.tickets`") as caught:
        proposed(path)
    hint = str(caught.value.hint)
    assert f"jq .data.tickets {name} > {command}" in hint
    path.write_text(json.dumps({"tickets": {f"K{n}": ticket(n) for n in range(40)}}))
    with pytest.raises(ConfigError, match="40 rows by their keys in `tickets`") as caught:
        proposed(path)
    held = {name: {str(n): ticket(n)[name] for n in range(40)} for name in ("Message", "Agent Reply")}
    for by_columns in (held, {"columns": ["Message"], "data": [[f"Lamp {n} is broken."] for n in range(40)]}):
        path.write_text(json.dumps(by_columns))
        with pytest.raises(ConfigError, match="the file holds columns") as refused:
            proposed(path)
        assert 'orient="records"' in str(refused.value.hint)
    assert f"jq '[.tickets | to_entries[] | {{id: .key}} + .value]' {name} > {command}" in str(caught.value.hint)
    path.write_text(json.dumps({"Anne Example": [{"a": 1}, {"a": 2}]}))
    with pytest.raises(ConfigError, match="a list of rows") as caught:
        proposed(path)
    assert "Anne" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    ("text", "reason"),
    [('[{"a":1},{"b":', "TG0240"), ('["my lamp is broken"]', "The row is JSON of kind text; a row is an object")],
)
def test_a_file_without_a_readable_row_says_so(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(ConfigError, match="no row of the file can be read") as caught:
        proposed(tmp_path / "t.json")
    assert reason in str(caught.value)
    assert "lamp" not in str(caught.value)


def test_a_boolean_is_no_label(write_jsonl: WriteCsv, tmp_path: Path) -> None:
    """The rows of KTO: a question, an answer, and whether that is good."""
    asked = {n: (ticket(n)["Message"], ticket(n)["Agent Reply"]) for n in range(90)}
    rows = ({"prompt": asked[n][0], "completion": asked[n][1], "label": n % 3 > 0} for n in asked)
    proposal = proposed(write_jsonl(rows))
    text, _ = loaded(proposal, tmp_path)
    assert (proposal.roles.shape, proposal.routing, proposal.tickets.n_usable) == ("prompt_completion", None, 60)
    assert "left out: label: not a category: true or false in 90 rows; a label is text or a number" in text
    assert (proposal.stops, "label is false, so its answer is bad" in text) == (True, True)


@pytest.mark.parametrize(
    ("column", "value"), [("priority", True), ("category", ["billing"]), ("created_at", {"$date": "2026-03-04"})]
)
def test_a_ticket_column_of_another_type_is_named_with_what_to_do(
    column: str, value: object, write_jsonl: WriteCsv
) -> None:
    rows = [{"body": ticket(n)["Message"], "reply": ticket(n)["Agent Reply"], column: value} for n in range(40)]
    with pytest.raises(ConfigError) as caught:
        proposed(write_jsonl(rows))
    assert f"40 of 40 rows: Field {column} has type " in str(caught.value.hint)
    assert "rename it in the file" in str(caught.value.hint)


def test_names_that_yaml_or_the_loader_could_misread_are_kept(write_csv: WriteCsv, tmp_path: Path) -> None:
    odd = {"Message": "body: #1 ${env:HOME}", "Agent Reply": "reply"}
    rows = [{odd.get(key, key): value for key, value in ticket(n).items()} for n in range(100)]
    rows = [{**row, "body": row["body: #1 ${env:HOME}"]} for row in rows]
    path = write_csv(rows)
    proposal = proposed(path)
    _, file = loaded(proposal, tmp_path)
    source = file.get("tickets").source
    assert dict(getattr(source, "columns"))["reply"] == "reply"  # noqa: B009


@pytest.mark.parametrize("name", ["Ticket  # ID", "Ticket: ID", "Ticket " + 60 * "-" + "  # - ID"])
def test_a_name_that_looks_like_a_comment_stays_a_name(name: str, write_csv: WriteCsv, tmp_path: Path) -> None:
    rows = [{name if key == "Ticket ID" else key: value for key, value in ticket(n).items()} for n in range(100)]
    text, file = loaded(proposed(write_csv(rows)), tmp_path)
    source = file.get("tickets").source
    assert dict(getattr(source, "columns"))["ticket_id"] == name  # noqa: B009
    assert "# 100 different values in 100 of 100 rows\n" in text


@pytest.mark.parametrize(
    "name",
    [
        "no", "1e3", "a: b", "x # y", "${env:HOME}", 'q"uo\\te', "tab\t", "\x01\x85\u2028", "\U0001f600", "日本", "",
        " a", "-", "?", "#",
    ],
)  # fmt: skip
def test_any_text_survives_a_round_trip(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(f"k: {flow(name)}\n")
    read = read_tree(read_source(path, max_bytes=1000, max_line=1000))["k"].value
    assert str(read).replace("$${", "${") == name


def test_normalised_column_names_match_the_ticket_columns() -> None:
    for columns in (KNOWN.names, *(desk.columns for desk in KNOWN.desks)):
        assert columns.keys() < set(CANONICAL)
    for names in KNOWN.names.values():
        assert [plain_form(name) for name in names] == list(names)
    assert all(isinstance(desk.answer_is, tuple) and len(desk.answer_is) == 2 for desk in KNOWN.desks)


def test_real_files_get_a_proposal_or_a_reason(shared_data: Path, tmp_path: Path) -> None:
    bitext = proposed(shared_data / "bitext_support" / "bitext_support_training_2023-08-18.csv")
    assert columns(bitext) == {"body": "instruction", "reply": "response", "category": "category"}
    banking = proposed(shared_data / "banking77" / "train.csv")
    assert (columns(banking), banking.has_reply) == ({"body": "text", "category": "category"}, False)
    assert banking.profile.columns["category"].n_distinct == 77
    for each in (bitext, banking):
        loaded(each, tmp_path)
    outcomes: dict[str, str] = {}
    folders = ("zendesk_fivetran_seeds/seeds", "freshdesk_fixtures/freshdesk/v2/tests/sample_json_data",
               "llamafactory_data", "axolotl_fixtures/alpaca")  # fmt: skip
    for folder in folders:
        for path in sorted((shared_data / folder).iterdir()):
            if path.suffix not in (".csv", ".json"):
                continue
            try:
                proposal = proposed(path)
            except (ConfigError, DataError) as error:
                outcomes[path.name] = error.code
            else:
                loaded(proposal, tmp_path)
                outcomes[path.name] = proposal.roles.shape
    assert outcomes["identity.json"] == "alpaca"
    assert outcomes["alpaca.json"] in ("alpaca", "TG0167")
    assert outcomes["ticket_data.csv"] == "TG0167"
    assert len(outcomes) > 40


@pytest.mark.parametrize(
    ("requester", "found"), [("zebra{0}@mail.example", True), ("+1 415-873-27{0:02d}", True), ("cust{0}", False)]
)
def test_ids_that_are_personal_are_pseudonymised(
    write_csv: WriteCsv, tmp_path: Path, requester: str, found: bool
) -> None:
    rows = [{**ticket(number), "Requester": requester.format(number % 40)} for number in range(200)]
    text, file = loaded(proposed(write_csv(rows)), tmp_path)
    (redact,) = [step for step in file.get("tickets").curate.steps if isinstance(step, RedactStep)]
    assert redact.pseudonymise == (("customer_id",) if found else ())
    assert ("TUNEGATE_PSEUDONYM_KEY" in text) is found


def test_addresses_ids_and_links_are_not_proposed_as_text(write_jsonl: WriteCsv, tmp_path: Path) -> None:
    def row(n: int) -> Row:
        codes = {"mail": f"zebra{n}@mail.example", "card": f"DE{n % 90 + 10} 3704 0044 0532 0130 {n:02d}"}
        links = {"url": f"https://desk.example/tickets/{n}", "key": f"{n:032x}"}
        return {"meta": {**codes, **links}, "content": {"q": ticket(n)["Message"], "a": ticket(n)["Agent Reply"]}}

    with pytest.raises(ConfigError, match="TG0167") as caught:
        proposed(write_jsonl(map(row, range(90))))
    assert "--body content.q --reply content.a" in str(caught.value.hint)
    assert "meta." not in str(caught.value.hint)
    flat = [{"ref": f"{n:032x}", "words": ticket(n)["Message"], "team": "abc"[n % 3]} for n in range(90)]
    assert columns(proposed(write_jsonl(flat)))["body"] == "words"


def test_a_column_of_one_value_says_in_how_many_rows_it_is(write_csv: WriteCsv) -> None:
    rows = [{**ticket(n), "Shop": "x", "Flag": "" if n % 3 else "yes"} for n in range(99)]
    left_out = proposed(write_csv(rows)).roles.left_out
    assert {"Shop: one value in every row", "Flag: one value, in 33 % of the rows"} <= {*left_out}


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_nan_in_json_is_named_with_what_to_write(value: str, write_jsonl: WriteCsv) -> None:
    rows = [{**ticket(n), "Score": n} for n in range(60)]
    path = write_jsonl(rows)
    path.write_text(path.read_text().replace('"Score": 5', f'"Märk": "ä", "Score": {value}, "Next": 1'))
    assert "Write null" in proposed(path).profile.why_unreadable
    whole = path.with_name("whole.json")
    whole.write_text(f'[{{}},\n{json.dumps(rows)[1:-1]}, {{"Märk": {value}}}]')
    with pytest.raises(ConfigError, match=r"NaN and Infinity are not JSON\. Write null"):
        proposed(whole)
    path.write_text(path.read_text().replace(value, "nan"))
    assert "The line is not JSON" in proposed(path).profile.why_unreadable


def test_a_title_above_the_header_is_named_with_the_command_that_removes_it(
    write_csv: WriteCsv, tmp_path: Path
) -> None:
    table = write_csv(map(ticket, range(90))).read_text()
    path = tmp_path / "report 1.csv"
    for title in ("Closed xylophone cases\nBy Anne\n\n", f"Report:{',' * 9}\n\n\n", "Xylophones, May\n\n\n",
                  f"Xylophones,May{',' * 8}\n\n\n"):  # fmt: skip
        text = f"{title}{table}"
        path.write_text(text)
        with pytest.raises(DataError, match=r"TG0204.*is the header in line 4\?") as caught:
            proposed(path)
        assert "tail -n +4 'report 1.csv' > 'cut-report 1.csv'" in str(caught.value.hint)
        assert "xylophone" not in str(caught.value)
    # Commas in the texts of another form are no columns.
    path.write_text("id;message;reply\n" + "".join(f"{n};Lamp {n}, please;Sent lamp {n}\n" for n in range(90)))
    assert columns(proposed(path))["body"] == "message"


def test_rows_that_end_with_one_more_separator_are_named_with_the_command_that_fixes_the_header(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = (ticket(n) for n in range(90))
    lines = [f"{row['Ticket ID']},{row['Title']},{row['Agent Reply']},{row['Issue Type']},\r\n" for row in rows]
    path.write_bytes("".join(["id,question,answer,category\r\n", *lines]).encode())
    with pytest.raises(DataError, match=r"TG0204.*they have 5 fields, it has 4") as caught:
        proposed(path)
    subprocess.run(["bash", "-c", str(caught.value.hint).partition(": ")[2]], cwd=tmp_path, check=True)
    assert columns(proposed(tmp_path / "cut-t.csv"))["category"] == "category"


def test_a_row_of_data_in_the_place_of_the_header_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "".join(f"Where is parcel number {n},{'billing' if n % 2 else 'other'}\n" for n in range(90))
    )
    with pytest.raises(ConfigError, match="the first row does not look like a header") as caught:
        proposed(tmp_path / "t.csv")
    assert "parcel" not in f"{caught.value} {caught.value.hint}"


def test_columns_without_names_are_not_called_a_first_row_where_the_file_has_none(tmp_path: Path) -> None:
    rows = ({"a\nb": f"Where is parcel number {n}", "# x: y": "billing" if n % 2 else "other"} for n in range(90))
    (tmp_path / "t.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    with pytest.raises(ConfigError, match="the columns' names do not look like names: 2 of 2") as caught:
        proposed(tmp_path / "t.jsonl")
    assert caught.value.hint == "rename the columns in the file"


@pytest.mark.parametrize("name", ["", "*.csv"])
def test_several_files_are_refused_with_the_way_to_read_them_all(name: str, write_csv: WriteCsv) -> None:
    folder = write_csv(map(ticket, range(9))).parent
    with pytest.raises(ConfigError, match=r"TG0130.*is not one file") as caught:
        proposed(folder / name)
    assert "`paths` in pipelines.yaml takes a glob" in str(caught.value.hint)
