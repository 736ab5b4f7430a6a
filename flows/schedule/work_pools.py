"""Does the Prefect server have the work pools that `place` names? By HTTP: `plan` does not import Prefect."""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Mapping
from pathlib import Path

from flows.workspace.prefect_login import read_login
from flows.workspace.servers import answer_code, read_state
from schemas.errors import ServiceError
from schemas.pipeline import PipelineSpec


def where_stages_run(spec: PipelineSpec, home: Path, *, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Stage -> `pool NAME`, of the placed stages; with `, not looked up` where no server answers.

    Raises:
        ServiceError: TG0701, the server answers and does not have a pool.
    """
    found: dict[str, str] = {}
    for stage, pool in spec.place.pools().items():
        is_there = _has_pool(pool, home, environ)
        if is_there is False:
            raise ServiceError(
                f"the Prefect server has no work pool {pool!r}", code="TG0701", where=f"{spec.name}.place.{stage}",
                hint=f"`prefect work-pool create {pool} --type process` makes one",
            )  # fmt: skip
        found[stage] = f"pool {pool}" if is_there else f"pool {pool}, not looked up: no Prefect server answers"
    return found


def _has_pool(pool: str, home: Path, environ: Mapping[str, str]) -> bool | None:
    """None when no server answers, or not whether it has the pool."""
    folder = home / "prefect"
    server = read_state(folder)
    url = environ.get("PREFECT_API_URL") or (f"{server.url}/api" if server is not None else "")
    login = environ.get("PREFECT_API_AUTH_STRING") or read_login(folder)
    code = answer_code(f"{url.rstrip('/')}/work_pools/{urllib.parse.quote(pool, safe='')}", login=login)
    return {200: True, 404: False}.get(code or 0)
