"""The witness of a ledger in Postgres: the history of the file must be copied."""

from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from flows.ledger import base
from flows.ledger.database import Database
from flows.ledger.ledger import Ledger
from flows.ledger.migrate import copy_ledger
from schemas.errors import StorageError
from tests.flows.ledger.test_witness import begin
from tests.support.postgres import Postgres


def test_a_postgres_without_the_files_history_is_refused_until_it_is_copied(tmp_path: Path, postgres: Postgres) -> None:
    home, state = tmp_path / "home", tmp_path / "state"
    in_file = Ledger(home, state=state)
    begin(in_file, "a")
    (home / "store" / "train" / "k").mkdir(parents=True)
    url = postgres.fresh()
    with pytest.raises(StorageError, match=r"TG0581.*there is no ledger"):
        begin(Ledger(home, url, state=state), "b")
    with pytest.raises(StorageError, match="TG0581"):
        Ledger(home, url, state=state).check()
    copy_ledger(in_file, Ledger(home, url))
    begin(Ledger(home, url, state=state), "b")
    assert [row.run_id for row in Ledger(home, url, state=state).runs()] == ["b", "a"]
    # From now on, the file is an earlier state of the same ledger.
    with pytest.raises(StorageError, match=r"TG0581.*earlier state"):
        begin(Ledger(home, state=state), "c")


def test_a_postgres_with_the_history_of_another_home_is_refused(tmp_path: Path, postgres: Postgres) -> None:
    state, url = tmp_path / "state", postgres.fresh()
    begin(Ledger(tmp_path / "other", url, state=state), "x")
    begin(Ledger(tmp_path / "home", state=state), "a")
    with pytest.raises(StorageError, match=r"TG0581.*belongs to ledger"):
        begin(Ledger(tmp_path / "home", url, state=state), "b")


def test_two_hosts_share_a_ledger_and_each_has_a_witness(tmp_path: Path, postgres: Postgres) -> None:
    url = postgres.fresh()
    hosts = [Ledger(tmp_path / name, url, state=tmp_path / f"state-{name}") for name in ("one", "two")]
    for number in range(4):
        begin(hosts[number % 2], str(number))
    for host in hosts:
        host.check()


def test_a_bad_ledger_in_postgres_is_not_read(tmp_path: Path, postgres: Postgres) -> None:
    home, state, url = tmp_path / "home", tmp_path / "state", postgres.fresh()
    begin(Ledger(home, url, state=state), "a")
    (home / "store").mkdir(parents=True)
    for _ in range(2):
        assert len(Ledger(home, url, state=state).runs()) == 1
    for other in (postgres.fresh(), postgres.fresh()):  # empty, then with another history
        with pytest.raises(StorageError, match="TG0581"):
            Ledger(home, other, state=state).runs()
        begin(Ledger(tmp_path / "other", other), "x")
        with pytest.raises(StorageError, match="TG0581"):
            Ledger(home, other, state=state).champions()
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE tunegate.runs SET reason = 'x'")
        cursor.execute("DELETE FROM tunegate.touched")
        connection.commit()
    for _ in range(2):
        with pytest.raises(StorageError, match="TG0580"):
            Ledger(home, url, state=state).champions()


def test_rows_in_postgres_are_checked_again_only_after_a_write(
    tmp_path: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, state, url = tmp_path / "home", tmp_path / "state", postgres.fresh()
    checks, check_books = list[int](), base.check_books

    def counted(db: Database) -> None:
        checks.append(1)
        check_books(db)

    monkeypatch.setattr(base, "check_books", counted)
    begin(Ledger(home, url, state=state), "a")
    checks.clear()
    for n_checks in (1, 2):
        for _ in range(3):
            Ledger(home, url, state=state).runs()
        assert len(checks) == n_checks
        with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
            cursor.execute("INSERT INTO tunegate.touched VALUES ('runs', '[]')")
            cursor.execute("DELETE FROM tunegate.touched")
            cursor.execute("UPDATE tunegate.runs SET reason = reason")
            cursor.execute("DELETE FROM tunegate.touched")
            connection.commit()


def test_a_table_that_is_gone_or_has_another_name_in_postgres_is_named(tmp_path: Path, postgres: Postgres) -> None:
    for number, statement in enumerate(("DROP TABLE marks", "ALTER TABLE runs RENAME TO other",
                                        "ALTER TABLE runs RENAME COLUMN reason TO why")):  # fmt: skip
        url = postgres.fresh()
        ledger = Ledger(tmp_path / f"home-{number}", url)
        begin(ledger, "a")
        with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
            cursor.execute("SET search_path TO tunegate")
            cursor.execute(statement)
            connection.commit()
        for use in (ledger.check, Ledger(ledger.root, url).runs):
            with pytest.raises(StorageError, match="TG0580"):
                use()
