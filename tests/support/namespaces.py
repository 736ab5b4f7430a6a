"""Hosts on a switch, each in its own Linux network namespace, with cables that tests can pull.

The switch has its own namespace too, so the machine's network stays untouched. Knows nothing of what the hosts do;
needs root and `ip`.
"""

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
"""A MAC address that no device here has."""
_networks = count(1)


class Network:
    """A switch without hosts; `add` connects them."""

    def __init__(self) -> None:
        self._prefix = f"{PREFIX}-{os.getpid()}-{next(_networks)}"
        self._switch = self._space("switch")
        self._hosts: list[str] = []
        _ip("netns", "add", self._switch)
        _ip("-n", self._switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", self._switch, "link", "set", "dev", "bridge", "up")

    def add(self, host: str) -> None:
        """Add a host, connected to the switch."""
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
        """The host's address in `NETWORK`."""
        return NETWORK.replace("0/24", str(self._hosts.index(host) + 1))

    def at(self, host: str) -> tuple[str, ...]:
        """The prefix that makes a command run on the host."""
        return "ip", "netns", "exec", self._space(host)

    def cut(self, host: str) -> None:
        """Pull the host's cable: no packet gets through and no peer is notified."""
        _ip("-n", self._switch, "link", "set", "dev", host, "down")

    def join(self, host: str) -> None:
        """Plug the cable back in."""
        _ip("-n", self._switch, "link", "set", "dev", host, "up")

    def silence(self, host: str, towards: str) -> None:
        """Drop packets from one host to the other, but not back."""
        _ip("-n", self._space(host), "neigh", "replace", self.address(towards), "lladdr", UNUSED_MAC, "dev", PORT)

    def unsilence(self, host: str, towards: str) -> None:
        """Stop dropping packets; may be repeated."""
        known = subprocess.run([*self.at(host), "ip", "neigh"], check=True, capture_output=True, text=True).stdout
        if self.address(towards) in known:
            _ip("-n", self._space(host), "neigh", "del", self.address(towards), "dev", PORT)

    def heal(self) -> None:
        """Plug in every cable and stop dropping packets."""
        for host in self._hosts:
            self.join(host)
            for other in self._hosts:
                self.unsilence(host, other)

    def close(self) -> None:
        """Remove everything; a namespace takes its cables with it."""
        _remove(f"{self._prefix}-")

    def _space(self, host: str) -> str:
        return f"{self._prefix}-{host}"


@contextmanager
def running_network(*hosts: str) -> Iterator[Network]:
    """Run a network for the duration of the block; skip the test without the permission to make one."""
    if os.geteuid() or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and the program ip (iproute2)")
    for left in _spaces():
        maker = left.removeprefix(f"{PREFIX}-").partition("-")[0]
        if not Path(f"/proc/{maker}").exists():  # left by killed tests
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
            subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)  # another may be faster


def _spaces() -> list[str]:
    listed = _ip("netns", "list").splitlines()
    return [line.split()[0] for line in listed if line.startswith(f"{PREFIX}-")]


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout
