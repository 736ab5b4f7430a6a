"""Extraction of nested exports by declared paths, of exports in several tables, of ratings, and of OpenAI's files."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.artifacts import TicketTable
from schemas.curation import TableSpec
from schemas.errors import DataError
from schemas.source import DuckDBSource, FilesSource
from tasks.curate.rows import read_rows
from tasks.curate.validate import validate_tickets
from tests.support.synced import extract as extract_source
from tests.tasks.curate.test_extract import removed

Rows = list[dict[str, Any]]
Extract = Callable[..., TicketTable]


@pytest.fixture
def extract(tmp_path: Path, new_folder: Callable[[], Path]) -> Extract:
    """Extract what the given options describe, relative to `root`."""

    def run(*paths: str, root: Path = tmp_path, source: Any = None, **options: Any) -> TicketTable:
        return extract_source(source or FilesSource(kind="files", paths=paths, **options), root, out=new_folder())

    return run


def tickets(table: TicketTable) -> Rows:
    rows: Rows = read_rows(table.tickets).to_pylist()
    return sorted(rows, key=lambda row: row["source_line"])


def jsonl(path: Path, *rows: object) -> None:
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))


# Nested rows

NESTED = {
    "ticket_id": "id", "customer_id": "requester.id", "created_at": "created_at", "body": "description_text",
    "reply": "conversations[-1].body_text",
}  # fmt: skip


def freshdesk(shared_data: Path, version: str) -> Path:
    return shared_data / "freshdesk_fixtures" / "freshdesk" / version / "tests" / "sample_json_data"


def test_a_freshdesk_ticket_is_mapped_by_paths_with_its_conversations(
    shared_data: Path, tmp_path: Path, extract: Extract
) -> None:
    folder = freshdesk(shared_data, "v2")
    row = orjson.loads((folder / "ticket_1.json").read_bytes())
    row["conversations"] = orjson.loads((folder / "conversations.json").read_bytes())  # as `include=conversations`
    jsonl(tmp_path / "t.jsonl", row, {**row, "id": 2, "conversations": []})
    one, two = tickets(extract("t.jsonl", columns=NESTED))
    assert (one["ticket_id"], one["customer_id"]) == ("1", str(row["requester"]["id"]))
    assert (one["body"], one["reply"]) == (row["description_text"], row["conversations"][-1]["body_text"])
    assert one["created_at"] == datetime(2016, 5, 18, 4, 36, 4)
    assert (two["ticket_id"], two["reply"]) == ("2", None)


def test_html_stays_text(shared_data: Path, extract: Extract) -> None:
    (row,) = tickets(extract("ticket_1.json", root=freshdesk(shared_data, "v2"), columns={"body": "description"}))
    assert row["body"] == "<div>This is a sample ticket, feel free to delete it.</div>"


def test_the_older_freshdesk_export_is_mapped_through_its_wrapper(shared_data: Path, extract: Extract) -> None:
    columns = {
        "ticket_id": "helpdesk_ticket.display_id", "customer_id": "helpdesk_ticket.requester_id",
        "body": "helpdesk_ticket.description", "reply": "helpdesk_ticket.notes[0].note.body",
    }  # fmt: skip
    table = extract("ticket_1.json", root=freshdesk(shared_data, "v1"), columns=columns)
    (row,) = tickets(table)
    assert (row["ticket_id"], row["reply"]) == ("1", "This is a reply.")
    assert row["body"].startswith("This is a sample ticket")
    assert "ignored_columns" not in table.notes


def test_every_freshdesk_answer_is_read_or_refused_as_having_no_ticket_column(
    shared_data: Path, extract: Extract
) -> None:
    paths = [path for version in ("v1", "v2") for path in sorted(freshdesk(shared_data, version).glob("*.json"))]
    outcomes = {}
    for path in paths:
        try:
            rows = extract(path.name, root=path.parent).rows
            outcomes[path] = str(rows.n_in - rows.n_out - rows.n_quarantined)
        except DataError as error:
            outcomes[path] = error.code
    assert len(outcomes) > 30
    assert set(outcomes.values()) == {"0", "TG0204"}


def test_paths_reach_into_structs_of_parquet_and_duckdb(tmp_path: Path, extract: Extract) -> None:
    talk = [{"body_text": "x"}, {"body_text": "y"}]
    rows = [
        {"id": 1, "requester": {"id": 7}, "description_text": "a", "conversations": talk},
        {"id": 2, "requester": None, "description_text": "b", "conversations": []},
    ]
    jsonl(tmp_path / "t.jsonl", *rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    with duckdb.connect(str(tmp_path / "w.duckdb")) as connection:
        connection.execute(f"create table tickets as from '{tmp_path}/t.parquet'")
    columns = {name: path for name, path in NESTED.items() if name != "created_at"}
    database = DuckDBSource.model_validate(
        {"kind": "duckdb", "database": "w.duckdb", "table": "tickets", "columns": columns}
    )
    results = [extract("t.jsonl", columns=columns), extract("t.parquet", columns=columns), extract(source=database)]
    wanted = [("1", "7", "a", "y"), ("2", None, "b", None)]
    for result in results:
        names = ("ticket_id", "customer_id", "body", "reply")
        assert [tuple(row[name] for name in names) for row in tickets(result)] == wanted


def test_a_column_of_that_very_name_goes_before_the_path(tmp_path: Path, extract: Extract) -> None:
    row = {"requester.id": "name", "requester": {"id": "path"}, "body": "b"}
    jsonl(tmp_path / "t.jsonl", row, {"requester": {"id": "path"}, "body": "b"})
    assert [row["customer_id"] for row in tickets(extract("t.jsonl", columns={"customer_id": "requester.id"}))] == [
        "name", "path",
    ]  # fmt: skip


def test_a_path_that_leads_nowhere_in_any_row_is_refused(tmp_path: Path, extract: Extract) -> None:
    jsonl(tmp_path / "t.jsonl", {"requester": {"id": "a"}, "body": "b"})
    with pytest.raises(DataError, match=r"TG0204.*'requester\.key', mapped to customer_id, is in no row"):
        extract("t.jsonl", columns={"customer_id": "requester.key"})


def test_what_a_path_finds_is_typed_like_a_column(tmp_path: Path, extract: Extract) -> None:
    rows = [{"body": "b", "requester": {"id": value}} for value in ("c", 5, {"x": 1})]
    jsonl(tmp_path / "t.jsonl", *rows)
    table = extract("t.jsonl", columns={"customer_id": "requester.id"})
    assert [row["customer_id"] for row in tickets(table)] == ["c", "5"]
    assert [(row["source_line"], row["code"], row["field"]) for row in removed(table)] == [(3, "TG0247", "customer_id")]


def test_a_conversation_taken_apart_by_paths_is_not_checked_as_one(tmp_path: Path, extract: Extract) -> None:
    row = {"messages": [{"by": "jane", "text": "question"}, {"by": "care", "text": "answer"}]}
    jsonl(tmp_path / "t.jsonl", row)
    (ticket,) = tickets(extract("t.jsonl", columns={"body": "messages[0].text", "reply": "messages[-1].text"}))
    assert (ticket["body"], ticket["reply"], ticket["messages"]) == ("question", "answer", None)


# Exports in several tables


def test_fivetran_tables_of_zendesk_are_joined_by_a_query(shared_data: Path, tmp_path: Path, extract: Extract) -> None:
    seeds = shared_data / "zendesk_fivetran_seeds" / "seeds"
    with duckdb.connect(str(tmp_path / "zendesk.duckdb")) as connection:
        for name in ("ticket", "ticket_comment"):
            connection.execute(f"create table {name} as from read_csv('{seeds}/{name}_data.csv', all_varchar = true)")
    query = """
        select ticket_id, any_value(ticket.requester_id) as customer_id, any_value(ticket.subject) as subject,
               arg_min(comment.body, comment.created) as body,
               case when count(*) > 1 then arg_max(comment.body, comment.created) end as reply,
               min(comment.created) as created_at
        from ticket_comment as comment left join ticket on ticket.id = comment.ticket_id
        where comment.public = 'TRUE' group by ticket_id order by ticket_id"""
    table = extract(source=DuckDBSource(kind="duckdb", database="zendesk.duckdb", query=query))
    rows = {row["ticket_id"]: row for row in tickets(table)}
    assert rows.keys() == {"1077", "13057", "13095", "13628", "14352", "7367", "7636"}
    assert (rows["7367"]["body"], rows["7367"]["reply"]) == ("body5", "body7")
    assert (rows["1077"]["body"], rows["1077"]["reply"]) == ("body1", None)
    assert rows["7367"]["created_at"] == datetime(2020, 7, 20, 20, 16, 47)


def test_versions_in_an_intercom_history_become_one_ticket_each(
    shared_data: Path, extract: Extract, new_folder: Callable[[], Path]
) -> None:
    columns = {"ticket_id": "id", "customer_id": "source_author_id", "body": "source_body"}
    columns["rating"] = "conversation_rating_value"
    seeds = shared_data / "intercom_fivetran_seeds" / "seeds"
    table = extract("conversation_history_data.csv", root=seeds, columns=columns)
    valid = validate_tickets(tickets=table, table=TableSpec(), out=new_folder())
    newest = {row["ticket_id"]: row["updated_at"] for row in tickets(valid)}
    assert table.rows.n_in == table.rows.n_out == 9
    assert newest == {
        "156643300001311": datetime(2020, 11, 2, 14, 17, 59), "156643300001372": datetime(2020, 11, 6, 13, 55, 1),
    }  # fmt: skip


# Ratings


def test_ratings_are_numbers_or_the_text_of_numbers(tmp_path: Path, extract: Extract) -> None:
    values = [5, 4.5, "3", " 2.5 ", None, "", "good", "4,5", True, [1], {"score": 1}, "1e999"]
    rows = [{"body": "b", "score": {"value": value}} for value in values]
    jsonl(tmp_path / "t.jsonl", *rows)
    table = extract("t.jsonl", columns={"rating": "score.value"})
    assert [row["rating"] for row in tickets(table)] == [5.0, 4.5, 3.0, 2.5, None, None]
    assert [(row["source_line"], row["code"], row["field"]) for row in removed(table)] == [
        (line, "TG0247", "rating") for line in range(7, 13)
    ]


def test_ratings_of_csv_and_parquet_are_numbers(tmp_path: Path, extract: Extract) -> None:
    (tmp_path / "t.csv").write_text("body,rating\na,4\nb,\nc,bad\n", encoding="utf-8")
    pq.write_table(pa.table({"body": ["a", "b"], "rating": pa.array([4, None], pa.int8())}), tmp_path / "t.parquet")
    assert [row["rating"] for row in tickets(extract("t.csv"))] == [4.0, None]
    assert [row["rating"] for row in tickets(extract("t.parquet"))] == [4.0, None]


# Training files of others


def test_files_for_openai_fine_tuning_are_read_by_their_rules(tmp_path: Path, extract: Extract) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    result = {"role": "tool", "tool_call_id": "c", "content": "1"}
    question = {"role": "user", "content": "q"}
    answer: dict[str, Any] = {"role": "assistant", "content": "a"}
    system = {"role": "developer", "content": "s"}
    conversations: list[Rows] = [
        [system, question, answer],
        [question, {**answer, "weight": 0}, question, {**answer, "weight": 1}],
        [question, {**answer, "weight": 0}],
        [question, {"role": "assistant", "tool_calls": [call]}, result, answer],
        [question, {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}],
        [question, {**answer, "weight": 0.5}],
    ]
    rows = [{"messages": messages, "tools": [], "parallel_tool_calls": False} for messages in conversations]
    jsonl(tmp_path / "t.jsonl", *rows)
    table = extract("t.jsonl")
    assert [(row["body"], row["reply"]) for row in tickets(table)] == [("q", "a"), ("q", "a")]
    assert [(row["source_line"], row["code"]) for row in removed(table)] == [
        (3, "TG0217"), (4, "TG0217"), (5, "TG0217"), (6, "TG0301"),
    ]  # fmt: skip
    weights = [[turn.get("weight") for turn in orjson.loads(row["messages"])] for row in tickets(table)]
    assert weights == [[None, None, None], [None, 0, None, 1]]


def test_content_in_parts_is_their_text_and_a_picture_is_not_read_past(tmp_path: Path, extract: Extract) -> None:
    said: dict[str, Any] = {"type": "text", "text": "q"}
    picture = {"type": "image_url", "image_url": {"url": "https://x.example/amber-ibis.png"}}
    contents: list[Any] = [
        [said], [said, {"type": "text", "text": "more"}], [said, picture],
        [{"type": "refusal", "refusal": "amber ibis"}], [], [said, "q"], [{"type": "text"}],
    ]  # fmt: skip
    answer = {"role": "assistant", "name": "desk", "content": [{"type": "text", "text": "a"}]}
    jsonl(tmp_path / "t.jsonl", *({"messages": [{"role": "user", "content": each}, answer]} for each in contents))
    table = extract("t.jsonl")
    assert [(row["body"], row["reply"]) for row in tickets(table)] == [("q", "a"), ("q\nmore", "a")]
    faults = removed(table)
    assert [(row["source_line"], row["code"]) for row in faults] == [(line, "TG0301") for line in range(3, 8)]
    assert "A part of message 1 is an image; only text is trained on." in faults[0]["reason"]
    assert "ibis" not in str(faults)


def test_preferences_of_openai_are_mapped_by_paths(tmp_path: Path, extract: Extract) -> None:
    preferred, other = ([{"role": "assistant", "content": text}] for text in ("good", "bad"))
    question = {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}], "tools": []}
    jsonl(tmp_path / "t.jsonl", {"input": question, "preferred_output": preferred, "non_preferred_output": other})
    with pytest.raises(DataError, match="TG0204"):
        extract("t.jsonl")
    columns = {"body": "input.messages[-1].content", "reply": "preferred_output[0].content"}
    assert [(row["body"], row["reply"]) for row in tickets(extract("t.jsonl", columns=columns))] == [("q", "good")]


def test_rows_of_other_trainings_are_quarantined_by_kind(tmp_path: Path, extract: Extract) -> None:
    plain = {"prompt": "q", "completion": "a"}
    others: list[tuple[dict[str, Any], str]] = [
        ({**plain, "label": False}, "label"),
        ({**plain, "kto_tag": False}, "kto_tag"),
        ({**plain, "images": ["a.png"]}, "images"),
        ({**plain, "audios": [{"path": "a.wav"}]}, "audios"),
        ({**plain, "tool_calls": [{"name": "f"}]}, "tool_calls"),
        ({"prompt": "q", "completion": "<tool_call>{}</tool_call>"}, "messages"),
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, "chosen"),
        ({"prompt": "q", "completion": "a", "chosen": "a", "rejected": "b"}, "chosen"),
    ]
    kept = [plain, {**plain, "label": True}, {**plain, "images": [], "tools": [{"name": "f"}]}]
    jsonl(tmp_path / "t.jsonl", *kept, *(row for row, _ in others))
    table = extract("t.jsonl")
    assert table.rows.n_out == len(kept)
    assert [(row["code"], row["field"]) for row in removed(table)] == [("TG0217", field) for _, field in others]
    jsonl(tmp_path / "pairs.jsonl", others[-2][0])
    with pytest.raises(DataError, match="TG0204") as caught:
        extract("pairs.jsonl")
    assert "reply: chosen" in str(caught.value.hint)
    (mapped,) = tickets(extract("pairs.jsonl", columns={"body": "prompt", "reply": "chosen"}))
    assert (mapped["body"], mapped["reply"]) == ("q", "a")


def test_tickets_may_have_columns_named_like_those_of_other_trainings(tmp_path: Path, extract: Extract) -> None:
    jsonl(tmp_path / "t.jsonl", {"body": "b", "label": False, "images": ["a.png"], "chosen": "x"})
    assert extract("t.jsonl").rows.n_out == 1


def test_the_old_form_of_openai_fine_tuning_is_prompt_and_completion(tmp_path: Path, extract: Extract) -> None:
    jsonl(tmp_path / "t.jsonl", {"prompt": "Where is it?\n\n###\n\n", "completion": " Here. END"})
    table = extract("t.jsonl")
    assert [(row["body"], row["reply"]) for row in tickets(table)] == [("Where is it?\n\n###\n\n", " Here. END")]
    assert table.notes["shape_prompt_completion"] == 1


def test_real_training_files_that_are_mixed_into_one_are_refused(
    shared_data: Path, tmp_path: Path, extract: Extract
) -> None:
    real = ["llamafactory_data/identity.json", "llamafactory_data/glaive_toolcall_en_demo.json"]
    alpaca, sharegpt = (orjson.loads((shared_data / name).read_bytes()) for name in real)
    jsonl(tmp_path / "t.jsonl", *alpaca, *sharegpt)
    with pytest.raises(DataError, match=rf"TG0204.*line 1 is alpaca, line {len(alpaca) + 1} is sharegpt"):
        extract("t.jsonl")
    jsonl(tmp_path / "u.jsonl", *alpaca, *sharegpt)
    declared = extract("u.jsonl", shape="alpaca")
    assert (declared.rows.n_out, declared.rows.n_quarantined) == (len(alpaca), len(sharegpt))


def test_files_of_token_ids_are_refused(shared_data: Path, extract: Extract) -> None:
    with pytest.raises(DataError, match="TG0204"):
        extract("conversation.tokenized.json", root=shared_data / "axolotl_fixtures")
