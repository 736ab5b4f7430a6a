"""The tests' Prefect server: its API and login."""

import json
import time
import urllib.error
import urllib.request
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.workspace.login import read_login
from flows.workspace.servers import Server, client_environment


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
