"""The secret key under which customers are hashed, the names of a customer, and the tombstones outside the home.

The key is that of the environment, or of a file that is created at first use and that only its owner can read. With the
first tombstone it is copied next to them, since a home that is restored from a backup may bring another key. A customer
goes by the source's id and by the pseudonyms that pipelines make of it.
"""

import os
import secrets
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import ValidationError

from flows.ledger.erasures import merge_tombstones
from flows.ledger.open import open_ledger
from flows.workspace.disk import keep_private, private_folder, write_private
from flows.workspace.settings import Settings
from schemas.curation_steps import RedactStep
from schemas.errors import SecurityError, StorageError
from schemas.forget import Tombstone
from schemas.pipeline import DataPipeline
from tasks.curate.redaction.pseudonyms import load_pseudonyms
from tasks.privacy.hashes import Forgotten, KeyedHash

VARIABLE = "TUNEGATE_FORGET_KEY"
SHORTEST_KEY = 16
KEY_FILE, TOMBSTONES = "forget.key", "tombstones.jsonl"


def load_hashes(settings: Settings, *, environ: Mapping[str, str] = os.environ) -> KeyedHash:
    """Return the hash under the key of this workspace; create the key if there is none.

    Raises:
        SecurityError: TG0830, the key is too short, or others may read its file.
    """
    given = environ.get(VARIABLE, "")
    if given:
        return KeyedHash(_long_enough(given.encode(), VARIABLE))
    for file in (settings.forgotten / KEY_FILE, settings.home / KEY_FILE):
        if file.exists():
            return KeyedHash(_read_key(file))
    file = private_folder(settings.home) / KEY_FILE
    keep_private(file, f"{secrets.token_hex(32)}\n")
    return KeyedHash(_read_key(file))


def keep_tombstone(settings: Settings, tombstone: Tombstone) -> None:
    """Add the tombstone to the ledger and to the file outside the home folder, next to the key."""
    folder = private_folder(settings.forgotten)
    if not os.environ.get(VARIABLE) and not (folder / KEY_FILE).exists():
        keep_private(folder / KEY_FILE, _read_key(settings.home / KEY_FILE) + b"\n")
    kept = {each.id: each for each in _read(settings)}
    kept[tombstone.id] = merge_tombstones(kept[tombstone.id], tombstone) if tombstone.id in kept else tombstone
    _write(settings, kept)
    open_ledger(settings).add_tombstone(tombstone)


def all_tombstones(settings: Settings) -> tuple[Tombstone, ...]:
    """Return the tombstones of the ledger and of the file; change nothing.

    Raises:
        StorageError: TG0566, the file cannot be read.
    """
    found: dict[str, Tombstone] = {}
    for each in (*open_ledger(settings).tombstones(), *_read(settings)):
        found[each.id] = merge_tombstones(found[each.id], each) if each.id in found else each
    return tuple(found.values())


def load_forgotten(settings: Settings) -> Forgotten | None:
    """Return the forgotten customers; None if there are none.

    Raises:
        SecurityError: TG0830, a tombstone was written under another key, so it matches no one.
    """
    tombstones = all_tombstones(settings)
    if not tombstones:
        return None
    hashes = load_hashes(settings)
    foreign = [each for each in tombstones if each.key_id != hashes.key_id]
    if foreign:
        raise SecurityError(
            f"{len(foreign)} of {len(tombstones)} tombstones are under another key: "
            f"{foreign[0].key_id}, and this one is {hashes.key_id}",
            code="TG0830",
            where=str(settings.forgotten / TOMBSTONES),
            hint=f"restore the key: {VARIABLE}, or {settings.forgotten / KEY_FILE}; without it forgotten customers "
            "would come back",
        )
    owners = (owner for each in tombstones for owner in each.owners)
    tickets = (ticket for each in tombstones for ticket in each.tickets)
    return Forgotten(hashes, owners=owners, tickets=tickets)


def _read(settings: Settings) -> list[Tombstone]:
    file = settings.forgotten / TOMBSTONES
    try:
        lines = file.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    try:
        return [Tombstone.model_validate_json(line) for line in lines if line.strip()]
    except ValidationError:
        raise StorageError(
            "the tombstones of forgotten customers cannot be read",
            code="TG0566",
            where=str(file),
            hint="restore the file from a backup: without it forgotten customers would come back",
        ) from None


def _write(settings: Settings, tombstones: Mapping[str, Tombstone]) -> None:
    lines = (f"{each.model_dump_json()}\n" for _, each in sorted(tombstones.items()))
    write_private(settings.forgotten / TOMBSTONES, "".join(lines))


def _read_key(file: Path) -> bytes:
    if stat.S_IMODE(file.stat().st_mode) & 0o077:
        raise SecurityError(
            "others may read the key of forgotten customers", code="TG0830", where=str(file), hint=f"chmod 600 {file}"
        )
    return _long_enough(file.read_bytes().strip(), str(file))


def _long_enough(key: bytes, where: str) -> bytes:
    if len(key) < SHORTEST_KEY:
        raise SecurityError(
            f"the key of forgotten customers has {len(key)} characters; at least {SHORTEST_KEY} are required",
            code="TG0830",
            where=where,
            hint=f'export {VARIABLE}="$(openssl rand -hex 32)"; keep it: tombstones mean nothing without it',
        )
    return key


def names_of(customer: str, specs: Iterable[DataPipeline]) -> tuple[str, ...]:
    """Return the source's id, then each pseudonym under which a pipeline's tables hold the customer.

    Raises:
        ConfigError: TG0190, a pipeline makes pseudonyms, and their key is not in the environment.
    """
    found = [customer]
    for spec in specs:
        name = customer
        for step in spec.curate.steps:
            if isinstance(step, RedactStep) and "customer_id" in step.pseudonymise:
                pseudonyms = load_pseudonyms(step)
                if pseudonyms is not None:
                    name = pseudonyms.of_all([name])[0] or name
        found.append(name)
    return tuple(dict.fromkeys(found))


def hashes_of(customer: str, specs: Iterable[DataPipeline], hashes: KeyedHash) -> tuple[str, Forgotten]:
    """Return the id of the customer's tombstone, and the hashes to find them by."""
    names = names_of(customer, specs)
    owners = [hashes.of("customer", name) for name in names]
    return owners[0], Forgotten(hashes, owners=owners, names=names)
