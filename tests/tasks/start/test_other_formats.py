"""Files that are no rows are named as what they are, with the way to a file that is read."""

import gzip
import io
import mailbox
import shlex
import subprocess
import sys
import zipfile
from email.message import EmailMessage
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.feather
import pyarrow.orc
import pyarrow.parquet as pq
import pytest

from schemas.errors import TunegateError
from tasks.start.file_profile import profile_file
from tasks.start.mail import tickets_of

ROWS = "id,text\n" + "".join(f"{n},My lamp {n} is broken\n" for n in range(5))


def archive(*names: str) -> bytes:
    """A zip archive of such files, the last of which is the largest."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as written:
        for number, name in enumerate(names):
            written.writestr(name, ROWS + "9,And one more\n" * number)
    return stream.getvalue()


WORKBOOK = archive("[Content_Types].xml", "xl/sharedStrings.xml")


@pytest.mark.parametrize(
    ("name", "data", "what", "hint"),
    [
        ("book.xlsx", WORKBOOK, "an Excel workbook", "save the sheet with the tickets as CSV"),
        ("book.csv", WORKBOOK, "an Excel workbook", "for which DuckDB downloads an extension"),
        ("t.avro", b"Obj\x01", "an Avro file", 'duckdb.table_function("read_avro", ["t.avro"])'),
        ("t.zip", archive("notes.pdf"), "a zip archive", "unzip t.zip"),
        ("t.zip", b"PK\x03\x04 and no more", "a damaged zip archive", "copy it again"),
        ("t.csv", gzip.compress(ROWS.encode(), mtime=0), "compressed with gzip", "mv t.csv t.csv.gz"),
        ("t.jsonl", b"%PDF-1.7 ", "a PDF", "as CSV or JSON Lines"),
        ("t 1.csv", ROWS.encode("utf-16"), "UTF-16", "iconv -f UTF-16 -t UTF-8 't 1.csv' > 'utf8-t 1.csv'"),
        ("t.csv", ROWS.encode("utf-32"), "UTF-32", "iconv -f UTF-32 -t UTF-8 t.csv > utf8-t.csv"),
        ("in.eml", b"From: a@example.org\n", "mail", "put the mails into an mbox"),
        ("dump.sql", b"INSERT INTO t VALUES (1);", "SQL statements", "mysql --batch"),
        ("t.txt", ROWS.encode(), "no suffix that is read", "rename it to end in .csv, .tsv, .jsonl, .json or .parquet"),
        ("t.txt.gz", gzip.compress(ROWS.encode(), mtime=0), "no suffix that is read", "then .gz or .zst"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_of_another_kind_is_named_with_what_to_do(
    name: str, data: bytes, what: str, hint: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(TunegateError) as caught:
        profile_file(tmp_path / name)
    assert what in caught.value.message
    assert hint in str(caught.value.hint)
    assert "lamp" not in str(caught.value)


def test_a_database_that_is_damaged_is_not_called_a_file_to_rename(tmp_path: Path) -> None:
    (tmp_path / "desk.duckdb").write_bytes(b"not a database")
    with pytest.raises(TunegateError, match=r"TG0130.*first bytes are those of no DuckDB or SQLite file") as caught:
        profile_file(tmp_path / "desk.duckdb")
    assert "rename" not in str(caught.value.hint)


def hinted(path: Path) -> str:
    """The line of the hint for this file that a shell can run."""
    with pytest.raises(TunegateError) as caught:
        profile_file(path)
    start = str(caught.value.hint)
    first = next(word for word in (sys.executable, "unzip -p") if word in start)
    return first + start.partition(first)[2]


def run(line: str, folder: Path) -> None:
    subprocess.run(line, shell=True, cwd=folder, check=True)  # noqa: S602 - as a user would


def test_the_lines_for_arrow_and_orc_make_a_parquet_file(tmp_path: Path) -> None:
    table = pa.table({"id": [1, 2], "text": ["My lamp", "it's broken"]})
    (stream := pa.ipc.new_stream(tmp_path / "it's a stream.arrow", table.schema)).write_table(table)
    stream.close()
    pyarrow.feather.write_feather(table, tmp_path / "t.feather")
    pyarrow.orc.write_table(table, tmp_path / "t.orc")
    lines = [hinted(tmp_path / name) for name in ("it's a stream.arrow", "t.feather", "t.orc")]
    for line in lines:  # in this process, where pyarrow is loaded
        words = shlex.split(line)
        assert words[:2] == [sys.executable, "-c"]
        (tmp_path / "tickets.parquet").unlink(missing_ok=True)
        program = words[2]
        for name in ("it's a stream.arrow", "t.feather", "t.orc", "tickets.parquet"):
            program = program.replace(f'"{name}"', f'"{tmp_path / name}"')
        exec(program, {})  # noqa: S102
        assert pq.read_table(tmp_path / "tickets.parquet").equals(table)


def test_the_line_for_an_extension_calls_what_duckdb_has(tmp_path: Path) -> None:
    """Without the network only the calls can be tried, with a function that needs no extension."""
    (tmp_path / "book.xlsx").write_bytes(WORKBOOK)
    program = shlex.split(hinted(tmp_path / "book.xlsx"))[2]
    assert callable(duckdb.install_extension)
    assert program.startswith('import duckdb; duckdb.install_extension("excel"); duckdb.load_extension("excel"); ')
    (tmp_path / "t.csv").write_text(ROWS)
    last = program.rpartition("; ")[2].replace("read_xlsx", "read_csv").replace("book.xlsx", str(tmp_path / "t.csv"))
    exec(last.replace('"tickets.csv"', repr(str(tmp_path / "tickets.csv"))), {"duckdb": duckdb})  # noqa: S102
    assert (tmp_path / "tickets.csv").read_text() == ROWS


def test_the_line_for_a_zip_archive_takes_out_its_largest_file(tmp_path: Path) -> None:
    (tmp_path / "an export.zip").write_bytes(archive("readme.txt", "old.csv", "2026/all [new].csv"))
    run(hinted(tmp_path / "an export.zip"), tmp_path)
    assert (tmp_path / "all [new].csv").read_text().startswith(ROWS)
    assert profile_file(tmp_path / "all [new].csv").n_rows == 7


def test_the_line_for_mail_writes_questions_with_their_first_answer(tmp_path: Path) -> None:
    box = mailbox.mbox(tmp_path / "in.mbox")
    for name, sender, answers, text in (
        ("q1", "Änne <a@example.org>", "", "My lamp is bröken."),
        ("r1", "Desk <help@acme.example>", "q1", "We send another one."),
        ("r2", "help@ACME.example", "q1", "And a second answer."),
        ("q2", "b@example.org", "r1", "Thanks."),
    ):
        mail = EmailMessage()
        mail["From"], mail["Subject"], mail["Message-ID"] = sender, f"About {name}", f"<{name}@x>"
        mail["Date"] = "Tue, 01 Dec 2026 10:00:00 +0100"
        if answers:
            mail["In-Reply-To"] = f"<{answers}@x>"
        mail.set_content(text)
        box.add(mail)
    broken = EmailMessage()
    broken["From"] = "c@example.org"
    box.add(broken)
    box.close()
    with pytest.raises(TunegateError, match="mail") as caught:
        profile_file(tmp_path / "in.mbox")
    assert "-m tasks.start.mail in.mbox @YOUR.DOMAIN > tickets.jsonl" in str(caught.value.hint)
    assert list(tickets_of(tmp_path / "in.mbox", "@acme.example")) == [
        {
            "ticket_id": "<q1@x>",
            "customer_id": "Änne <a@example.org>",
            "created_at": "2026-12-01T10:00:00+01:00",
            "subject": "About q1",
            "body": "My lamp is bröken.",
            "reply": "We send another one.",
        }
    ]
