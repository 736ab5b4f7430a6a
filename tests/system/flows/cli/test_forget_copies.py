"""A customer in a remote file is forgotten by the real command: no trace is left, also after the next run."""

import json

import pytest

from tests.support.file_server import file_server
from tests.support.traces import traces
from tests.support.workplace import ForkedWorkplace
from tests.system.flows.cli.test_forget import CUSTOMER, N_TICKETS, TEXT, tickets, traces_left


@pytest.mark.server
def test_no_trace_is_left_although_the_bucket_still_has_the_customer(empty_workplace: ForkedWorkplace) -> None:
    with file_server() as remote:
        rows = tickets()
        parts = {"a": rows[:80], "b": [*rows[80:150], "not JSON"], "c": rows[150:]}
        for name, part in parts.items():
            remote.put(f"/desk/{name}.jsonl", "".join(json.dumps(row) + "\n" for row in part))
        declared = {"kind": "remote_files", "urls": ["s3://desk/*.jsonl"], "endpoint": remote.url}
        empty_workplace.declare(lambda document: document["pipelines"]["small"].update(source=declared))
        first = empty_workplace.json("data", "curate", "small")["funnel"][0]
        assert (first["n_in"], first["n_quarantined"], first["n_dropped"]) == (163, 1, 0)
        assert any(name.startswith("ingest/") for name in traces_left(empty_workplace))

        plan = empty_workplace.run("data", "forget", CUSTOMER, "--plan")
        assert "s3://desk/c.jsonl" in plan.stdout + plan.stderr
        done = empty_workplace.run("data", "forget", CUSTOMER, "--apply", "--reason", "case 17")
        assert done.returncode == 0, done.stderr
        assert traces_left(empty_workplace) == []
        again = empty_workplace.json("data", "curate", "small")["funnel"][0]
        assert (again["n_in"], again["n_dropped"]) == (163, N_TICKETS)
        assert traces_left(empty_workplace) == []
        assert [len(remote.gets(f"/desk/{name}.jsonl")) for name in "abc"] == [1, 2, 2]

        killed = empty_workplace.run("data", "curate", "small", TUNEGATE_FAILPOINT="copies.recorded")
        assert killed.returncode == -9
        assert traces(empty_workplace.home / "ingest", (CUSTOMER, TEXT))
        assert empty_workplace.run("data", "forget", "--again").returncode == 0
        assert traces_left(empty_workplace) == []
