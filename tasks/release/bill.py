"""Bills of materials in CycloneDX's JSON: what a release is made of, and what a run made its model of.

Written by hand, since the form is a few keys: the tests hold it against CycloneDX's own schema. Equal inputs give equal
bytes. It knows nothing of stores and ledgers. Called by `flows/bill.py`.

Source: CycloneDX 1.6 (ECMA-424), https://cyclonedx.org/docs/1.6/json/
"""

from __future__ import annotations

import re
import sys
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from tasks.files import sha256_json

SPECIFICATION = "1.6"
_PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^ ;\\\n]+)[^\n]*((?:\n +--hash=[^\n]+)*)", re.M)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_FOLDER = re.compile(r"(?P<name>.+?)-(?P<version>\d[^-]*)\.dist-info")


@dataclass(frozen=True, order=True)
class Distribution:
    """One Python distribution; `hashes` are those of every file of this version that the lock allows."""

    name: str
    version: str
    hashes: tuple[str, ...] = ()
    licence: str = ""


@dataclass(frozen=True)
class Part:
    """A component that is no distribution: a model or a set of tickets.

    Args:
        kind: `machine-learning-model`, `data` or `application`.
        digest: sha256 over the manifest of its files.
        about: Further properties, shown under `tunegate:`.
    """

    kind: str
    name: str
    version: str
    digest: str = ""
    purl: str = ""
    about: Mapping[str, str] = field(default_factory=dict)


def read_lock(path: Path) -> tuple[Distribution, ...]:
    """Every pin of a `requirements.lock`, by name and version; none when there is no such file."""
    if not path.is_file():
        return ()
    found = [
        Distribution(canonical(name), version, tuple(sorted(_HASH.findall(hashes))))
        for name, version, hashes in _PIN.findall(path.read_text(encoding="utf-8"))
    ]
    return tuple(sorted(set(found)))


def installed(locked: Iterable[Distribution], *, paths: Sequence[str] | None = None) -> tuple[Distribution, ...]:
    """What is installed here, from the names of its folders (reading each metadata would take a second); with the
    lock's hashes where the lock has this version. An empty `hashes` says that it is not the locked one."""
    known = {(pin.name, pin.version): pin.hashes for pin in locked}
    found: dict[str, Distribution] = {}
    for folder in paths if paths is not None else sys.path:
        place = Path(folder)
        for entry in sorted(place.glob("*.dist-info")) if place.is_dir() else []:
            if match := _FOLDER.fullmatch(entry.name):
                name, version = canonical(match["name"]), match["version"]
                found.setdefault(name, Distribution(name, version, known.get((name, version), ())))
    found.pop("tunegate", None)
    return tuple(sorted(found.values()))


def with_licences(distributions: Iterable[Distribution]) -> tuple[Distribution, ...]:
    """The same with the licence that an installed distribution names; others stay without."""
    return tuple(Distribution(each.name, each.version, each.hashes, licence_of(each.name)) for each in distributions)


def licence_of(name: str) -> str:
    """The SPDX expression of an installed distribution, else its licence classifiers, else its `License` line."""
    try:
        told = metadata.metadata(name).json
    except metadata.PackageNotFoundError:
        return ""
    classifiers = [str(line).rpartition(" :: ")[2] for line in told.get("classifier", []) if "License ::" in line]
    named = {each for each in classifiers if each not in ("OSI Approved", "Other/Proprietary License")}
    line = str(told.get("license", "")).strip().partition("\n")[0].strip()
    return str(told.get("license_expression", "")) or " AND ".join(sorted(named)) or line


def canonical(name: str) -> str:
    """A distribution's name as package indexes compare it.

    >>> canonical("Flask_WTF")
    'flask-wtf'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def bill_of_materials(
    subject: Part, *, parts: Sequence[Part], distributions: Iterable[Distribution], time: str | None = None
) -> dict[str, Any]:
    """The document: `subject` is what is described and is made of everything else.

    Args:
        subject: A release or a trained model.
        parts: Models, data and the application that went into it.
        distributions: Python distributions that ran.
        time: ISO 8601 with zone, when it was made; null for a bill that does not depend on time.
    """
    components = [*map(_part, parts), *map(_distribution, distributions)]
    main = _part(subject)
    document = {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPECIFICATION}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPECIFICATION,
        "version": 1,
        "metadata": {
            **({"timestamp": time} if time else {}),
            "tools": {"components": [{"type": "application", "name": "tunegate"}]},
            "component": main,
        },
        "components": components,
        "dependencies": [
            {"ref": main["bom-ref"], "dependsOn": sorted(component["bom-ref"] for component in components)}
        ],
    }
    digest = sha256_json(document)
    return {**document, "serialNumber": f"urn:uuid:{uuid.UUID(digest[:32], version=4)}"}


def _part(part: Part) -> dict[str, Any]:
    named = f"{part.kind}:{part.name}@{part.version}"
    return {
        "type": part.kind,
        "bom-ref": named,
        "name": part.name,
        "version": part.version,
        **({"purl": part.purl} if part.purl else {}),
        **({"hashes": [{"alg": "SHA-256", "content": part.digest}]} if len(part.digest) == 64 else {}),
        **(
            {"properties": [{"name": f"tunegate:{name}", "value": part.about[name]} for name in sorted(part.about)]}
            if part.about
            else {}
        ),
    }


def _distribution(each: Distribution) -> dict[str, Any]:
    purl = f"pkg:pypi/{each.name}@{each.version.replace('+', '%2B')}"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": each.name,
        "version": each.version,
        "purl": purl,
        **({"licenses": [{"license": {"name": each.licence}}]} if each.licence else {}),
        **({"hashes": [{"alg": "SHA-256", "content": digest} for digest in each.hashes]} if each.hashes else {}),
        **({} if each.hashes else {"properties": [{"name": "tunegate:locked", "value": "false"}]}),
    }
