"""Settings from the environment, for the whole application: where state is kept and which servers are used.

Everything else is declared in `pipelines.yaml`. Importing this module or calling `load_settings` changes nothing on
disk.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import ConfigError


@dataclass(frozen=True)
class Settings:
    """Resolved settings; both folders are absolute and need not exist."""

    home: Path
    """State: store, ledger, locks, local servers. `TUNEGATE_HOME`, else `.tunegate` next to pipelines.yaml."""
    cache: Path
    """Downloads that can be repeated. `TUNEGATE_CACHE`, else `~/.cache/tunegate` (or below `XDG_CACHE_HOME`)."""
    prefect_api_url: str | None
    """`PREFECT_API_URL`; None starts a private server."""
    mlflow_tracking_uri: str | None
    """`MLFLOW_TRACKING_URI`; None uses SQLite below `home`. `register.tracking_uri` of a pipeline comes first."""
    ledger_url: str | None = None
    """`TUNEGATE_LEDGER_URL`, a Postgres that several hosts share; None uses a SQLite file below `home`."""
    forgotten_at: Path | None = None
    """`TUNEGATE_FORGOTTEN`; see `forgotten`."""
    ray_address: str | None = None
    """`RAY_ADDRESS`, the head of a running cluster; needed only with `engine: ray`."""
    shared_storage: str | None = None
    """`TUNEGATE_SHARED`, an fsspec URL that every node of the cluster sees; needed only with `engine: ray`."""

    shared_store: Path | None = None
    """`TUNEGATE_STORE`, on a machine that only runs placed stages: the home folder of the machine with the ledger.
    Results are read from and written to it; this machine's own home has no ledger. None for results in `home`."""
    cpu: float | None = None
    """`TUNEGATE_CPU`, cores that all steps may use together; None for those of the machine."""
    gpu: float | None = None
    """`TUNEGATE_GPU`, accelerators; None for those of the machine."""
    memory_gb: float | None = None
    """`TUNEGATE_MEMORY_GB`, memory that all steps may use together; None for that of the machine."""
    server_idle_s: float = 3600.0
    """`TUNEGATE_SERVER_IDLE_S`, seconds without use after which the user's Prefect server ends."""
    state: Path | None = None
    """What this user keeps outside all homes: the witnesses of their ledgers, their Prefect server. `tunegate`
    below `XDG_STATE_HOME`, else below `~/.local/state`; None keeps none."""

    @property
    def forgotten(self) -> Path:
        """Key, tombstones and certificates of customers who were forgotten: next to `home`, so that restoring a backup
        of it does not remove them. `.tunegate-forgotten` if not set."""
        return self.forgotten_at or self.home.with_name(f"{self.home.name}-forgotten")


def load_settings(pipelines: Path, *, environ: Mapping[str, str] = os.environ) -> Settings:
    """Settings for this `pipelines.yaml`; an empty variable counts as unset.

    Raises:
        ConfigError: TG0119, an amount is negative or not a number.
    """

    def folder(variable: str, default: Path) -> Path:
        return Path(environ.get(variable) or default).expanduser().absolute()

    def amount(variable: str) -> float | None:
        text = environ.get(variable)
        try:
            value = float(text) if text else None
        except ValueError:
            value = math.nan
        if value is not None and not value >= 0:
            raise ConfigError(
                f"{variable} is {text!r}",
                code="TG0119",
                where=variable,
                hint="use a number of at least 0, such as 4 or 7.5",
            )
        return value

    cache = Path(environ.get("XDG_CACHE_HOME") or "~/.cache") / "tunegate"
    forgotten = environ.get("TUNEGATE_FORGOTTEN")
    idle_s = amount("TUNEGATE_SERVER_IDLE_S")
    return Settings(
        home=folder("TUNEGATE_HOME", pipelines.absolute().parent / ".tunegate"),
        cache=folder("TUNEGATE_CACHE", cache),
        prefect_api_url=environ.get("PREFECT_API_URL") or None,
        mlflow_tracking_uri=environ.get("MLFLOW_TRACKING_URI") or None,
        ledger_url=environ.get("TUNEGATE_LEDGER_URL") or None,
        forgotten_at=Path(forgotten).expanduser().absolute() if forgotten else None,
        ray_address=environ.get("RAY_ADDRESS") or None,
        shared_store=folder("TUNEGATE_STORE", Path()) if environ.get("TUNEGATE_STORE") else None,
        cpu=amount("TUNEGATE_CPU"),
        gpu=amount("TUNEGATE_GPU"),
        memory_gb=amount("TUNEGATE_MEMORY_GB"),
        shared_storage=environ.get("TUNEGATE_SHARED") or None,
        server_idle_s=Settings.server_idle_s if idle_s is None else idle_s,
        state=(Path(environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "tunegate").absolute(),
    )
