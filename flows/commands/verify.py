"""`tunegate verify`: is an exported folder whole, and did the holder of a key sign it?"""

from __future__ import annotations

from pathlib import Path

import orjson

from flows.commands.output import out, print_json, talk
from tasks.files import MANIFEST, verify


def verify_export(*, folder: Path, key: Path | None, signature: Path | None, as_json: bool) -> int:
    """Compare every file with the manifest, and with the signature where a public key is given.

    Raises:
        StorageError: TG0510, the folder is not what its manifest says.
        ConfigError: TG0112, the extra `signing` is not installed.
        SecurityError: TG0824, the signature does not hold or cannot be checked.
    """
    from tasks.release.signing import check_signature, signature_of

    digest = verify(folder)
    if key is not None:
        check_signature(folder, key=key, signature=signature)
    origin = orjson.loads((folder / MANIFEST).read_bytes()).get("export") or {}
    told = {name: origin.get(name) for name in ("name", "version", "standing", "format", "run_id")}
    if as_json:
        print_json({"folder": str(folder), "sha256": digest, "signed": key is not None, **told})
        return 0
    out().print(f"whole: every file has its sha256 ({digest})")
    out().print(f"{told['name']} v{told['version']}, {told['standing']}, as {told['format']}", markup=False)
    if key is not None:
        out().print(f"signed by the holder of {key}", markup=False)
    else:
        beside = (signature or signature_of(folder)).is_file()
        talk().print(f"note {'its signature was not checked: give --key' if beside else 'it is not signed'}")
    return 0
