"""Ingests sources in forks of one process, each with its own failpoint; importing dlt takes seconds.

A job is a line of JSON on stdin: source, root, landed, failpoint (empty: none), variables. The answer is a line with
the fork's exit status.
"""

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DELAY_S = 0.001


class Ingests:
    """The process to fork."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ingest(self, source: Any, folder: Path, failpoint: str = "") -> bool:
        """Ingest a source; False if the failpoint killed the process."""
        named = re.findall(r"\$\{env:(\w+)\}", source.model_dump_json())
        variables = {name: os.environ[name] for name in named}
        job = {
            "source": source.model_dump(mode="json"), "root": str(folder), "landed": str(folder / "landed"),
            "failpoint": failpoint, "variables": variables,
        }  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        assert status in (0, -9), status
        return status == 0


@contextmanager
def ingests(project: Path) -> Iterator[Ingests]:
    environ = {**os.environ, "PYTHONPATH": str(project)}
    process = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ
    )
    try:
        yield Ingests(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(60)
        assert process.stdout is not None
        process.stdout.close()


def _main() -> None:
    from pydantic import TypeAdapter

    import tasks.sources.web as web
    import tasks.sources.zendesk_api as api
    from schemas.errors import TunegateError
    from schemas.remote_source import ZendeskSource
    from schemas.source import SourceSpec
    from tasks.sources.registry import ingest_source
    from tasks.storage.failpoint import VARIABLE

    os.environ.update(api.QUIET)
    for name in ("duckdb", "httpx", "psycopg2", "pyarrow"):
        importlib.import_module(name)

    # Let dlt do its per-process setup before the forks; this makes no request.
    about = ZendeskSource(kind="zendesk", base_url="http://127.0.0.1:1", oauth_token="${env:PATH}", start="2026-06-01")
    api.ZendeskApi(about).pages("nowhere", {}, api.export_paginator())
    api.FIRST_DELAY_S = web.FIRST_DELAY_S = DELAY_S  # no waiting in tests
    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork()
        if pid:
            sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n")
            sys.stdout.flush()
            continue
        os.environ |= {**job["variables"], VARIABLE: job["failpoint"]}
        try:
            source = TypeAdapter(SourceSpec).validate_python(job["source"])
            ingest_source(source, root=Path(job["root"]), landed=Path(job["landed"]))
        except TunegateError as error:
            sys.stderr.write(f"{error}\n")
            os._exit(error.exit_code)
        except BaseException as error:
            sys.stderr.write(f"{error!r}\n")
            os._exit(99)
        os._exit(0)


if __name__ == "__main__":
    _main()
