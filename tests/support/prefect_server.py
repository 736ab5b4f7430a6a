"""The tests' Prefect server: its API, with the login that it asks for."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.workspace.prefect_login import read_login
from flows.workspace.servers import Server, client_environment


@dataclass(frozen=True)
class PrefectServer:
    """A private server that was started in a home folder of its own."""

    server: Server

    @property
    def url(self) -> str:
        """Of the API."""
        return f"{self.server.url}/api"

    @property
    def login(self) -> str:
        login = read_login(Path(self.server.log).parent)
        assert login is not None
        return login

    @property
    def environ(self) -> dict[str, str]:
        """What a process needs to be its client."""
        return client_environment(self.server)

    def settings(self) -> dict[Any, str]:
        """The same for `temporary_settings`."""
        from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL

        return {PREFECT_API_URL: self.url, PREFECT_API_AUTH_STRING: self.login}

    def ask(self, path: str, body: Any = None) -> Any:
        """GET, or POST JSON; asked again while the database is busy. None where the answer is empty."""
        headers = {
            "Content-Type": "application/json",
            "Authorization": f"Basic {b64encode(self.login.encode()).decode()}",
        }
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(self.url + path, data, headers)
        while True:
            try:
                with urllib.request.urlopen(asked, timeout=120) as response:
                    return json.loads(response.read() or b"null")
            except urllib.error.HTTPError as error:
                error.close()
                if error.code != 503:
                    raise
                time.sleep(1)
