"""What only a ledger in Postgres can face: other hosts, lost servers, invalid addresses."""

import json
import os
import threading
import time
from contextlib import closing

import pytest

from flows.ledger.ledger import Ledger
from flows.ledger.postgres import HOLDER_SILENCE_S, SILENCE_S, without_password
from flows.ledger.rows import RunVerdict
from flows.ledger.sqlite import BUSY_TIMEOUT_S
from schemas.errors import ConfigError, LockedError, ServiceError
from tests.support.postgres import running_postgres
from tests.support.processes import wait_for


@pytest.fixture
def hosts(postgres, tmp_path):
    """Two hosts with their own folders and one ledger."""
    url = postgres.fresh()
    return Ledger(tmp_path / "one", url), Ledger(tmp_path / "two", url)


def begin(ledger, run_id):
    ledger.start_run(run_id, pipeline="support", model_name="replies", config_json="{}")


def wait_until_free(ledger, pipeline):
    """Wait until the server ends the session, which releases the lock."""
    wait_for(lambda: ledger.holder_of(pipeline) is None)


def test_one_host_reads_what_the_other_writes(hosts, kit):
    one, two = hosts
    begin(one, "a")
    ref = kit.candidate_ref(one.root, 1)
    one.record_candidate(ref, verdict="PROMOTE", reason="better")
    one.promote("replies", expected=None, version="1", verdict=RunVerdict("run-1", "better"))
    assert two.run("a").status == "RUNNING"
    assert two.champion("replies").version == "1"
    assert two.champion("replies").bundle.root.is_relative_to(two.root)  # each host finds the files in its own folder
    assert not (two.root / "ledger.sqlite").exists()


def test_a_pipeline_runs_on_one_host_at_a_time_and_a_live_run_is_not_marked_interrupted(hosts):
    one, two = hosts
    with one.pipeline_lock("support", wait_s=0, run_id="run-1"):
        begin(one, "run-1")
        assert two.holder_of("support").run == "run-1"
        assert two.holder_of("other") is None
        assert two.mark_interrupted() == ()
        with (
            pytest.raises(LockedError, match=r"TG0520.*run run-1.*another host"),
            two.pipeline_lock("support", wait_s=0, run_id="run-2"),
        ):
            pass
    wait_until_free(two, "support")
    assert [row.run_id for row in two.mark_interrupted()] == ["run-1"]


def test_the_lock_of_a_killed_run_is_free_on_every_host(hosts, start):
    one, two = hosts
    process = start(one, "hold", "support", 60)
    assert process.stdout.readline() == "holding\n"
    assert two.holder_of("support").run == f"run-{process.pid}"
    assert two.mark_interrupted() == ()
    process.kill()
    process.wait()
    wait_until_free(two, "support")
    assert [row.run_id for row in two.mark_interrupted()] == [f"run-{process.pid}"]


def test_one_host_updates_mlflow_at_a_time(hosts):
    one, two = hosts
    with one.mlflow_lock(wait_s=0) as check_one:
        check_one()
        with two.mlflow_lock(wait_s=0) as check_two, pytest.raises(ServiceError, match="TG0710"):
            check_two()
    with two.mlflow_lock(wait_s=10) as check_two:  # like `wait_until_free`
        check_two()


def test_a_host_whose_connection_the_server_ended_loses_the_lock(hosts):
    import psycopg2

    one, two = hosts
    with one.mlflow_lock(wait_s=0) as check_one:
        with closing(psycopg2.connect(one.kept.url)) as connection:
            query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tunegate teller'"
            connection.cursor().execute(query)
        with two.mlflow_lock(wait_s=5) as check_two:
            check_two()
            with pytest.raises(ServiceError, match="TG0710"):
                check_one()


def test_both_ends_close_a_silent_connection_before_other_writers_time_out(hosts):
    import socket

    one, _ = hosts
    with one.write() as db:
        names = ("keepalives_idle", "keepalives_interval", "keepalives_count", "user_timeout")
        server_settings = [db.execute("SELECT current_setting(?)", (f"tcp_{name}",)).fetchone()[0] for name in names]
        with socket.socket(fileno=os.dup(db._connection.fileno())) as connection:
            options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
            client_settings = [connection.getsockopt(socket.IPPROTO_TCP, option) for option in options]
    assert (server_settings, client_settings) == (["10", "5", "2", "20000"], [10, 5, 2, 20_000])
    assert client_settings[0] + client_settings[1] * client_settings[2] == SILENCE_S < BUSY_TIMEOUT_S < HOLDER_SILENCE_S


def test_others_wait_for_a_frozen_writer_and_are_then_refused(hosts, monkeypatch):
    one, two = hosts
    begin(one, "a")
    monkeypatch.setattr("flows.ledger.postgres.SETTINGS", "SET search_path TO tunegate; SET lock_timeout = 300;")
    with one.write() as db:
        db.execute("UPDATE runs SET reason = 'half'")
        with pytest.raises(LockedError, match="TG0520"):
            begin(two, "b")
        assert two.run("a").reason == ""  # readers do not wait and do not see the change
    assert two.run("a").reason == "half"


def test_a_killed_and_restarted_database_has_what_was_committed(tmp_path, kit, monkeypatch):
    monkeypatch.setattr("flows.ledger.postgres.RESTART_S", 300.0)  # as long as a busy machine needs
    with running_postgres() as server:
        ledger = Ledger(tmp_path, server.url)
        ledger.record_candidate(kit.candidate_ref(tmp_path, 1), verdict="PROMOTE", reason="better")

        def write_during_kill():
            with ledger.write() as db:
                db.execute("UPDATE candidates SET reason = 'half'")
                server.kill()
                db.execute("UPDATE candidates SET reason = 'whole'")

        with pytest.raises(ServiceError, match="TG0709") as caught:
            write_during_kill()
        assert caught.value.exit_code == 7
        starting = threading.Timer(1.0, server.start)
        starting.start()
        assert ledger.candidate("replies", "1").reason == "better"  # waited for the server
        starting.join()
        ledger.promote("replies", expected=None, version="1", verdict=RunVerdict("run-1", "better"))
        assert len(ledger.history()) == 1
        server.stop()
        monkeypatch.setattr("flows.ledger.postgres.RESTART_S", 0.3)
        with pytest.raises(ServiceError, match=r"TG0709.*does not answer") as caught:
            ledger.runs()
        assert caught.value.where == f"postgresql://127.0.0.1:{server.port}/postgres"


def test_addresses_are_checked_and_their_password_is_never_shown(tmp_path, postgres, monkeypatch):
    for url in ("mysql://x/y", "ledger.sqlite", "http://127.0.0.1/"):
        with pytest.raises(ConfigError, match="TG0103"):
            Ledger(tmp_path, url)
    nowhere = postgres.url_of("nowhere").replace("tunegate@", "tunegate:geheim@")
    monkeypatch.setattr("flows.ledger.postgres.RESTART_S", 600.0)
    started = time.monotonic()
    with pytest.raises(ServiceError, match="TG0709") as caught:
        Ledger(tmp_path, nowhere).runs()
    assert time.monotonic() - started < 300  # a refusal is not retried
    assert "nowhere" in caught.value.message
    assert "geheim" not in json.dumps(caught.value.to_json())
    assert without_password("postgres://ada:geheim@db/x") == "postgresql://db/x"


def test_a_user_without_permission_to_create_tables_gets_a_clear_error(tmp_path, postgres):
    import psycopg2

    url = postgres.fresh()
    with psycopg2.connect(url) as connection:
        connection.cursor().execute("DROP ROLE IF EXISTS guest")
        connection.cursor().execute("CREATE ROLE guest LOGIN")
    ledger = Ledger(tmp_path, url.replace("tunegate@", "guest@"))
    assert ledger.runs() == ()
    with pytest.raises(ServiceError, match=r"TG0709.*permission denied"):
        begin(ledger, "a")


def test_a_missing_driver_is_reported_with_what_to_install(tmp_path, postgres, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "psycopg2", None)
    with pytest.raises(ConfigError, match="TG0112") as caught:
        Ledger(tmp_path, postgres.url).runs()
    assert "the extra `postgres`" in caught.value.message


def test_characters_that_postgres_cannot_store_are_replaced(hosts):
    one, _ = hosts
    begin(one, "a")
    one.finish_run("a", status="FAILED", reason="a\x00b", exit_code=1)
    assert one.run("a").reason == "a\ufffdb"


def test_every_command_opens_the_ledger_from_the_settings(project):
    for folder in ("flows", "flows/cli"):
        for path in (project / folder).glob("*.py"):
            if path.name != "ops.py":  # `ops migrate` opens the ledger that it copies to
                assert "Ledger(" not in path.read_text().replace("open_ledger(", ""), path
