"""The tests' Prefect servers: one for all tests of a worker, and one that a test may kill."""

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.workspace.login import read_login
from flows.workspace.servers import Server, answers, client_environment, ensure_prefect
from tests.support.processes import wait_for


@dataclass(frozen=True)
class PrefectServer:
    """A private server started in its own home folder."""

    server: Server

    @property
    def url(self) -> str:
        """The API's address."""
        return f"{self.server.url}/api"

    @property
    def login(self) -> str:
        login = read_login(Path(self.server.log).parent)
        assert login is not None
        return login

    @property
    def environ(self) -> dict[str, str]:
        """Environment variables for a client process."""
        return client_environment(self.server)

    def settings(self) -> dict[Any, str]:
        """The same settings for `temporary_settings`."""
        from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL

        return {PREFECT_API_URL: self.url, PREFECT_API_AUTH_STRING: self.login}

    def ask(self, path: str, body: Any = None) -> Any:
        """GET, or POST JSON; retry while the database is busy. None if the answer is empty."""
        headers = {
            "Content-Type": "application/json",
            "Authorization": f"Basic {b64encode(self.login.encode()).decode()}",
        }
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers)
        while True:
            try:
                with urllib.request.urlopen(request, timeout=120) as response:
                    return json.loads(response.read() or b"null")
            except urllib.error.HTTPError as error:
                error.close()
                if error.code != 503:
                    raise
                time.sleep(1)


class OwnServer:
    """A Prefect server of this test, which may kill it and start it again at the same address."""

    def __init__(self, home: Path) -> None:
        server = ensure_prefect(home, environ={"PATH": os.environ["PATH"], "HOME": str(home)})
        assert server is not None
        self.server: Server = server
        process = Path(f"/proc/{server.pid}")
        self._command = process.joinpath("cmdline").read_bytes().decode().split("\0")[:-1]
        pairs = process.joinpath("environ").read_bytes().decode().split("\0")[:-1]
        self._environ = dict(pair.split("=", 1) for pair in pairs)
        self._folder = process.joinpath("cwd").readlink()
        self._again: subprocess.Popen[bytes] | None = None

    def kill(self) -> None:
        os.killpg(self.server.pid, signal.SIGKILL)

    def start_again(self) -> None:
        self._again = subprocess.Popen(
            self._command, env=self._environ, cwd=self._folder, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_for(lambda: answers(f"{self.server.url}/api/health"))

    def stop(self) -> None:
        if self._again is not None:
            os.killpg(self._again.pid, signal.SIGKILL)
            self._again.wait()
