"""Which pipelines and stages Prefect runs, and whether its server has their work pools.

By HTTP, without importing Prefect: it reads its settings when it is imported, which takes long.
"""

import os
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path

from flows.workspace.login import read_login
from flows.workspace.servers import answer_code, read_state
from schemas.errors import ConfigError, ServiceError
from schemas.load import PipelineFile
from schemas.pipeline import PipelineSpec

TAG = "tunegate"
"""On every deployment that tunegate creates."""


def placed_stages(loaded: PipelineFile) -> Iterator[tuple[str, str, str]]:
    """Yield (pipeline, stage, pool) of every placed stage."""
    for name, spec in loaded.pipelines.items():
        for stage, pool in spec.place.pools().items():
            yield name, stage, pool


def automatic_pipelines(loaded: PipelineFile) -> dict[str, PipelineSpec]:
    """Return the pipelines with a schedule or triggers, in the order of the file.

    Raises:
        ConfigError: TG0159, there is none.
    """
    found = {name: spec for name, spec in loaded.pipelines.items() if spec.schedule is not None or spec.triggers}
    if not found and not any(placed_stages(loaded)):
        raise ConfigError(
            "no pipeline has a schedule, a trigger or a placed stage", code="TG0159", where=str(loaded.path),
            hint="add `schedule: {cron: ...}` to one",
        )  # fmt: skip
    return found


def where_stages_run(spec: PipelineSpec, home: Path, *, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return stage -> `pool NAME` of the placed stages; with `, not checked` if no server answers.

    Raises:
        ServiceError: TG0701, the server answers and does not have a pool.
    """
    found: dict[str, str] = {}
    for stage, pool in spec.place.pools().items():
        exists = _has_pool(pool, home, environ)
        if exists is False:
            raise ServiceError(
                f"the Prefect server has no work pool {pool!r}", code="TG0701", where=f"{spec.name}.place.{stage}",
                hint=f"`prefect work-pool create {pool} --type process` creates it",
            )  # fmt: skip
        found[stage] = f"pool {pool}" if exists else f"pool {pool}, not checked: no Prefect server answers"
    return found


def _has_pool(pool: str, home: Path, environ: Mapping[str, str]) -> bool | None:
    """Return whether the server has the pool; None if no server answers that."""
    folder = home / "prefect"
    server = read_state(folder)
    url = environ.get("PREFECT_API_URL") or (f"{server.url}/api" if server is not None else "")
    login = environ.get("PREFECT_API_AUTH_STRING") or read_login(folder)
    key = environ.get("PREFECT_API_KEY") if environ.get("PREFECT_API_URL") else None
    code = answer_code(f"{url.rstrip('/')}/work_pools/{urllib.parse.quote(pool, safe='')}", login=login, key=key)
    return {200: True, 404: False}.get(code or 0)
