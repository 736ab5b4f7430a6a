"""Which columns of strangers' files are taken for what."""

import json
import shutil
import subprocess
from datetime import datetime
from pathlib import Path

import pytest

from schemas.errors import ConfigError
from schemas.file_reading import TurnsSpec
from schemas.source import FilesSource
from tasks.curate.rows import read_rows
from tasks.start.labels import other_labels
from tasks.start.propose import Proposal, propose_pipeline
from tests.support import strangers
from tests.support.synced import extract
from tests.tasks.start.conftest import WriteCsv, ticket


def proposed(path: Path) -> Proposal:
    return propose_pipeline(path, name=None, root=path.parent)


def test_the_label_is_the_teams_queue_and_the_other_columns_are_named(tmp_path: Path) -> None:
    proposal = proposed(strangers.itil_queue(tmp_path))
    assert proposal.routing is not None
    assert proposal.routing.name == "queue"
    (other,) = proposal.roles.other_labels
    assert other.startswith("type: ")
    assert "could be a label (4 different values in 600 rows)" in other


def test_excels_times_are_read_and_ids_and_amounts_of_their_size_are_not(write_csv: WriteCsv) -> None:
    def time_of(**columns: str) -> tuple[str, str | None] | None:
        rows = [{name: value for name, value in ticket(n).items() if name != "Created"} for n in range(120)]
        rows = [
            {**row, **{name: form.format(**numbers(n)) for name, form in columns.items()}} for n, row in enumerate(rows)
        ]
        proposal = proposed(write_csv(rows))
        role = proposal.roles.of("created_at")
        return None if role is None else (role.name, proposal.time_format)

    def numbers(n: int) -> dict[str, float]:
        return {"id": 41_000 + 7 * n, "amount": 40_000 + 71.37 * n, "time": 46_027 + n + n * 61 % 1440 / 1440}

    assert time_of(Stamp="{time:.9f}") == ("Stamp", "excel")
    assert time_of(Stamp="{amount:.2f}") is None
    assert time_of(Stamp="{id}") is None
    assert time_of(Created="{id}") == ("Created", "excel"), "its name says that it is a time"
    assert time_of(Created="{time:.2f}") == ("Created", "excel")


def test_a_run_reads_excels_times(tmp_path: Path) -> None:
    proposal = proposed(strangers.excel_serials(tmp_path))
    source = FilesSource(kind="files", paths=("sheet.csv",), time_format=proposal.time_format,
                         columns={role.column: role.name for role in proposal.roles.found})  # fmt: skip
    times = {row["ticket_id"]: row["created_at"] for row in read_rows(extract(source, tmp_path).tickets).to_pylist()}
    assert times["41000"] == datetime(2026, 1, 5)
    assert times["41009"] == datetime(2026, 1, 6, 0, 9)


def test_the_label_is_one_that_the_texts_predict_and_the_figures_of_the_others_are_shown(tmp_path: Path) -> None:
    proposal = proposed(strangers.unlearnable(tmp_path))
    assert proposal.routing is not None
    assert proposal.routing.name == "department"
    (other,) = other_labels(proposal.roles, proposal.tickets.probes)
    assert other.startswith("category: ")
    assert "; TF-IDF is right in 0." in other
    assert any("routing needs no language model; `--label none` learns the replies alone" in each
               for each in proposal.warnings)  # fmt: skip


def test_a_label_that_no_text_predicts_is_named_with_what_is_left_to_learn(tmp_path: Path) -> None:
    path = strangers.unlearnable(tmp_path)
    named = propose_pipeline(path, name=None, root=tmp_path, named={"category": "category"})
    (doubt,) = [each for each in named.warnings if "not predictable" in each]
    assert doubt.startswith("category is not predictable from the text: TF-IDF reaches 0.")
    assert "; `--label none` learns the replies alone; `--label department` (TF-IDF is right in " in doubt
    alone = propose_pipeline(path, name=None, root=tmp_path, named={"category": "none"})
    assert (alone.routing, alone.has_reply, alone.metric) == (None, True, "chrf")
    routed = propose_pipeline(path, name=None, root=tmp_path, named={"reply": "none"})
    assert (routed.has_reply, routed.routing is not None) == (False, True)
    assert not any("no answers are learned" in each for each in routed.warnings)


def test_rows_without_a_reply_can_be_routed(tmp_path: Path) -> None:
    assert any("67 % of the rows with a label have no reply and are not learned from: `--reply none`" in each
               for each in proposed(strangers.public_desk(tmp_path)).warnings)  # fmt: skip


def test_all_answers_of_a_list_of_turns_are_learned(tmp_path: Path) -> None:
    proposal = proposed(strangers.service_chats(tmp_path))
    turns = proposal.roles.turns
    assert turns == TurnsSpec(speaker="speaker", text="utterance", agents=("SYSTEM",))
    source = FilesSource(kind="files", paths=("dialogues_001.json",), shape="messages", turns=turns,
                         columns={"messages": "turns"})  # fmt: skip
    rows = read_rows(extract(source, tmp_path).tickets).to_pylist()
    assert len(rows) == 200
    for row in rows:
        roles = [turn["role"] for turn in json.loads(row["messages"])]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
    assert max(row["messages"].count("Please send the") for row in rows) == 4


def test_a_file_of_several_lists_of_rows_names_them_with_a_command_that_works(tmp_path: Path) -> None:
    path = strangers.parts_object(tmp_path)
    with pytest.raises(ConfigError, match=r"choose one: oos_val \(40 rows\), val \(60 rows\), train \(300") as caught:
        proposed(path)
    command = str(caught.value.hint).rpartition(": jq ")[2]
    assert command == "'[.train[] | {text: .[0], label: .[1]}]' data_full.json > train.json"
    if shutil.which("jq"):
        subprocess.run(["bash", "-c", f"jq {command}"], cwd=tmp_path, check=True)
        found = proposed(tmp_path / "train.json").roles.found
        assert {str(role.column): role.name for role in found} == {"body": "text", "category": "label"}
    path.write_text(json.dumps({"train": [ticket(n) for n in range(9)], "dev": [ticket(n) for n in range(4)]}))
    with pytest.raises(ConfigError, match=r"choose one: train \(9 rows\), dev \(4 rows\)") as caught:
        proposed(path)
    assert "jq .train data_full.json > train.json" in str(caught.value.hint)


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
