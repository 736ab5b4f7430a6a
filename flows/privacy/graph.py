"""What was made from what: the results of a store and the digests that went into each, as their keys keep them.

Reads the store and the ledger, changes nothing. Results that are gone are known as well, so that what was made from
them is found.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson

from flows.engine.ledger import Ledger
from tasks.files import MANIFEST, sha256_json


@dataclass(frozen=True)
class Node:
    """One result."""

    step: str
    """Its folder in the store."""
    key: str
    digests: frozenset[str]
    """Of the bytes that lie there, and of those that runs have recorded."""
    inputs: frozenset[str]
    digest: str
    """Of what lies there; empty when nothing does."""

    @property
    def place(self) -> str:
        """Below the home folder."""
        return f"store/{self.step}/{self.key}"


class Graph:
    """The results of one home folder."""

    def __init__(self, home: Path, ledger: Ledger) -> None:
        self.home = home
        recorded = ledger.digests_by_key()
        present = {(place.parent.name, place.name) for place in (home / "store").glob("*/*") if place.is_dir()}
        parts = {(file.parent.name, file.stem): file for file in (home / "keys").glob("*/*.json")}
        self.nodes = [
            _node(home, step, key, parts.get((step, key)), recorded.get(key, frozenset()))
            for step, key in sorted(present | parts.keys())
        ]

    @cached_property
    def by_place(self) -> dict[tuple[str, str], Node]:
        """(step, key) -> result."""
        return {(node.step, node.key): node for node in self.nodes}

    @cached_property
    def by_digest(self) -> dict[str, list[Node]]:
        """Digest -> results that have it or had it."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for digest in node.digests:
                found.setdefault(digest, []).append(node)
        return found

    @property
    def present(self) -> list[Node]:
        """Results that lie in the store."""
        return [node for node in self.nodes if node.digest]

    def made_from(self, roots: Iterable[Node]) -> list[Node]:
        """The roots and everything that was made from them, directly or not."""
        users: dict[str, list[Node]] = {}
        for node in self.nodes:
            for digest in node.inputs:
                users.setdefault(digest, []).append(node)
        found: dict[tuple[str, str], Node] = {}
        todo = list(roots)
        while todo:
            node = todo.pop()
            if (node.step, node.key) not in found:
                found[node.step, node.key] = node
                todo += [user for digest in node.digests for user in users.get(digest, [])]
        return [found[place] for place in sorted(found)]

    def reference(self, node: Node) -> dict[str, Any]:
        """The fields that tell what the result is; empty for one that is gone or damaged."""
        try:
            fields: dict[str, Any] = orjson.loads((self.path(node) / "artifact.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return fields

    def path(self, node: Node) -> Path:
        """Where the result lies."""
        return self.home / node.place


def digest_at(folder: Path) -> str:
    """The digest of a result by its manifest, or one that stands for a damaged result; empty without a folder."""
    if not folder.is_dir():
        return ""
    with suppress(OSError, ValueError, KeyError):
        return sha256_json(orjson.loads((folder / MANIFEST).read_bytes())["files"])
    return "damaged"


def _node(home: Path, step: str, key: str, parts: Path | None, recorded: frozenset[str]) -> Node:
    digest = digest_at(home / "store" / step / key)
    inputs: set[str] = set()
    if parts is not None:
        with suppress(OSError, ValueError, KeyError):
            for value in orjson.loads(parts.read_bytes())["inputs"].values():
                inputs |= {value} if isinstance(value, str) else set(value)
    known = recorded | ({digest} if digest and digest != "damaged" else frozenset())
    return Node(step, key, frozenset(known), frozenset(inputs), digest)
