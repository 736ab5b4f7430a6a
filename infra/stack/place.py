"""Where the stack is: its folder, its ports, its secrets, and the environment of a process that uses it.

Ports are chosen once and kept. Secrets come from the environment; missing ones are created at the first start and kept
in `secrets.json`, which only this user can read. None is ever a command-line argument.
"""

import json
import os
import secrets
import socket
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from flows.workspace.disk import keep_private, private_folder, write_private
from flows.workspace.servers import MLFLOW_ENVIRONMENT, PREFECT_ENVIRONMENT, free_port
from flows.workspace.settings import load_settings
from infra.stack.postgres import USER, PostgresCluster

DATABASES = ("ledger", "prefect", "mlflow", "mlflow_auth")
POOL = "tunegate"
SECRETS = (
    "POSTGRES_PASSWORD", "PREFECT_PASSWORD", "MLFLOW_ADMIN_PASSWORD", "MLFLOW_PASSWORD",
    "MLFLOW_FLASK_SERVER_SECRET_KEY", "TUNEGATE_ENDPOINT_TOKEN",
)  # fmt: skip
"""Each may be set as `TUNEGATE_STACK_NAME`."""
PORTS = {"postgres": 54320, "prefect": 4200, "mlflow": 5000, "worker": 8090, "endpoint": 8000}
"""On 127.0.0.1. Ports in use are replaced by free ones, with TUNEGATE_STACK_PORTS=free all of them."""


class StackPlace:
    """The stack of one pipelines.yaml, or of the home folder that TUNEGATE_HOME names."""

    def __init__(self, config: Path, *, environ: Mapping[str, str] = os.environ) -> None:
        self.config, self.environ = config.absolute(), environ
        self.home = load_settings(config, environ=environ).home
        self.folder = self.home / "stack"

    def prepare(self) -> None:
        """Create the folder and its files."""
        private_folder(self.folder)
        _ = self.ports, self.secrets
        line = f"127.0.0.1:{self.ports['postgres']}:*:{USER}:{self.secrets['POSTGRES_PASSWORD']}"
        write_private(self.folder / "pgpass", line + "\n")

    @cached_property
    def ports(self) -> dict[str, int]:
        """Service -> port, in the order in which they start."""
        kept = self.folder / "ports.json"
        if not kept.exists():
            private_folder(self.folder)
            free = self.environ.get("TUNEGATE_STACK_PORTS") == "free"
            found: dict[str, int] = {}
            for name, port in PORTS.items():
                found[name] = free_port(without=found.values()) if free or not _is_free(port) else port
            keep_private(kept, json.dumps(found))
        return dict(json.loads(kept.read_text()))

    @cached_property
    def secrets(self) -> dict[str, str]:
        kept = self.folder / "secrets.json"
        if not kept.exists():
            private_folder(self.folder)
            found = {name: self.environ.get(f"TUNEGATE_STACK_{name}") or secrets.token_hex(24) for name in SECRETS}
            keep_private(kept, json.dumps(found))
        return dict(json.loads(kept.read_text()))

    @cached_property
    def cluster(self) -> PostgresCluster:
        folder = self.environ.get("TUNEGATE_STACK_POSTGRES")
        where = Path(folder) if folder else self.folder / "cluster"
        return PostgresCluster(where, self.ports["postgres"], password=self.secrets["POSTGRES_PASSWORD"])

    def database(self, name: str, *, driver: str = "") -> str:
        """Return the address of a database; PGPASSFILE has its password."""
        return self.cluster.url(name).replace("postgresql://", f"postgresql{driver}://")

    @property
    def prefect_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['prefect']}"

    @property
    def mlflow_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['mlflow']}"

    def client(self) -> dict[str, str]:
        """Return what our processes need to use the stack: a run, the worker, the endpoint."""
        return {
            **PREFECT_ENVIRONMENT,
            **MLFLOW_ENVIRONMENT,
            "TUNEGATE_HOME": str(self.home),
            "TUNEGATE_CONFIG": str(self.config),
            "TUNEGATE_LEDGER_URL": self.database("ledger"),
            "PGPASSFILE": str(self.folder / "pgpass"),
            "PREFECT_HOME": str(self.folder / "prefect"),
            "PREFECT_PROFILES_PATH": str(self.folder / "prefect" / "profiles.toml"),
            "PREFECT_API_URL": f"{self.prefect_url}/api",
            "PREFECT_API_AUTH_STRING": f"tunegate:{self.secrets['PREFECT_PASSWORD']}",
            "MLFLOW_TRACKING_URI": self.mlflow_url,
            "MLFLOW_TRACKING_USERNAME": "tunegate",
            "MLFLOW_TRACKING_PASSWORD": self.secrets["MLFLOW_PASSWORD"],
            "TUNEGATE_ENDPOINT_TOKEN": self.secrets["TUNEGATE_ENDPOINT_TOKEN"],
        }

    def process(self) -> dict[str, str]:
        """Return the whole environment of such a process."""
        others = ("PREFECT_", "MLFLOW_", "PG")  # these may point to other servers
        kept = {name: value for name, value in self.environ.items() if not name.startswith(others)}
        here = str(Path(__file__).resolve().parents[2])
        path = ":".join(dict.fromkeys([here, *filter(None, kept.get("PYTHONPATH", "").split(":"))]))
        direct = {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
        return {**kept, **direct, **self.client(), "PYTHONPATH": path}


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
