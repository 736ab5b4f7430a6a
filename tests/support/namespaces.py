"""Hosts at a switch, each in a Linux network namespace of its own, with cables that can be pulled.

The switch has a namespace too, so that nothing of the machine's own network is touched. Knows nothing of what the hosts
do; needs root and `ip`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

PREFIX = "tunegate-test"
NETWORK = "10.77.0.0/24"
PORT = "eth0"
UNUSED_MAC = "02:00:00:00:00:01"
"""An address of a card that nothing here has."""
_networks = count(1)


class Network:
    """An empty switch; `add` puts hosts to it."""

    def __init__(self) -> None:
        self._prefix = f"{PREFIX}-{os.getpid()}-{next(_networks)}"
        self._switch = self._space("switch")
        self._hosts: list[str] = []
        _ip("netns", "add", self._switch)
        _ip("-n", self._switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", self._switch, "link", "set", "dev", "bridge", "up")

    def add(self, host: str) -> None:
        """A host with its cable in the switch."""
        space = self._space(host)
        _ip("netns", "add", space)
        self._hosts.append(host)
        _ip("-n", space, "link", "add", PORT, "type", "veth", "peer", "name", host, "netns", self._switch)
        _ip("-n", self._switch, "link", "set", "dev", host, "master", "bridge")
        _ip("-n", space, "addr", "add", f"{self.address(host)}/24", "dev", PORT)
        for link in ("lo", PORT):
            _ip("-n", space, "link", "set", "dev", link, "up")
        self.join(host)

    def address(self, host: str) -> str:
        """Its address in `NETWORK`."""
        return NETWORK.replace("0/24", str(self._hosts.index(host) + 1))

    def at(self, host: str) -> tuple[str, ...]:
        """What a command begins with to run on the host."""
        return "ip", "netns", "exec", self._space(host)

    def cut(self, host: str) -> None:
        """Pull the host's cable out of the switch: no packet comes or goes, and no one is notified."""
        _ip("-n", self._switch, "link", "set", "dev", host, "down")

    def join(self, host: str) -> None:
        """Put it back."""
        _ip("-n", self._switch, "link", "set", "dev", host, "up")

    def silence(self, host: str, towards: str) -> None:
        """Lose what the one host sends to the other; what the other sends arrives."""
        _ip("-n", self._space(host), "neigh", "replace", self.address(towards), "lladdr", UNUSED_MAC, "dev", PORT)

    def unsilence(self, host: str, towards: str) -> None:
        """Lose nothing any more; may be repeated."""
        known = subprocess.run([*self.at(host), "ip", "neigh"], check=True, capture_output=True, text=True).stdout
        if self.address(towards) in known:
            _ip("-n", self._space(host), "neigh", "del", self.address(towards), "dev", PORT)

    def heal(self) -> None:
        """Every cable in its place, every way open."""
        for host in self._hosts:
            self.join(host)
            for other in self._hosts:
                self.unsilence(host, other)

    def close(self) -> None:
        """Take all of it away; with a namespace its cables go."""
        _remove(f"{self._prefix}-")

    def _space(self, host: str) -> str:
        return f"{self._prefix}-{host}"


@contextmanager
def running_network(*hosts: str) -> Iterator[Network]:
    """One that is gone at the end of the block; a test that may not make it is skipped."""
    if os.geteuid() or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and the program ip (iproute2)")
    for left in _spaces():
        maker = left.removeprefix(f"{PREFIX}-").partition("-")[0]
        if not Path(f"/proc/{maker}").exists():  # tests that were killed
            _remove(left)
    network = None
    try:
        try:
            network = Network()
        except subprocess.CalledProcessError as error:
            _remove(f"{PREFIX}-{os.getpid()}-")
            pytest.skip(f"network namespaces cannot be made here: {error.stderr.strip()}")
        for host in hosts:
            network.add(host)
        yield network
    finally:
        if network is not None:
            network.close()


def _remove(prefix: str) -> None:
    for space in _spaces():
        if space.startswith(prefix):
            subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)  # another may be quicker


def _spaces() -> list[str]:
    listed = _ip("netns", "list").splitlines()
    return [line.split()[0] for line in listed if line.startswith(f"{PREFIX}-")]


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout
