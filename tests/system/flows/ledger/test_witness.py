"""The witness of a ledger in Postgres: the history of the file must be copied."""

from pathlib import Path

import pytest

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
