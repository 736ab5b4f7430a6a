"""`tunegate model verify`: an exported folder, which may come from another machine."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import orjson
import typer

from flows.cli.command import command
from flows.cli.output import Result, note
from schemas.errors import ConfigError, StorageError
from tasks.release.signing import check_signature, signature_of
from tasks.storage import sealed_folder


@command(example="tunegate model verify handed-out --key release.pem")
def verify(
    folder: Annotated[Path, typer.Argument(help="An exported folder.", show_default=False)],
    key: Annotated[Path | None, typer.Option(metavar="PUB.pem", help="Public key of who should have signed.")] = None,
    signature: Annotated[Path | None, typer.Option(help="The signature; FOLDER.sig if not given.")] = None,
) -> Result:
    """Compare an exported folder with its manifest and signature."""
    if not folder.is_dir():
        raise ConfigError(
            f"{folder} is {'a file' if folder.exists() else 'not there'}; the folder of an export is needed",
            code="TG0110", where=str(folder), hint="`tunegate model export PIPELINE@champion --out FOLDER` writes one",
        )  # fmt: skip
    try:
        digest = sealed_folder.verify(folder)
    except StorageError as error:
        error.hint = "`tunegate model export PIPELINE@champion --out OTHER` writes another; do not use this one"
        raise
    if key is not None:
        check_signature(folder, key=key, signature=signature)
    manifest = orjson.loads((folder / sealed_folder.MANIFEST).read_bytes())
    origins = manifest.get("exports") or [manifest.get("export") or {}]
    names = ("name", "version", "standing") if "name" in origins[0] else ("pipeline", "snapshot_id")
    shown = [{name: each.get(name) for name in (*names, "format", "run_id")} for each in origins]

    def text() -> Iterator[str]:
        yield f"whole: every file has its sha256 ({digest})"
        for each in shown:
            if "name" in each:
                yield f"{each['name']} v{each['version']}, {each['standing']}, as {each['format']}"
            else:
                yield f"{each['pipeline']}, snapshot {each['snapshot_id']}, as {each['format']}"
        if key is not None:
            yield f"signed by the holder of {key}"
        else:
            unchecked = (signature or signature_of(folder)).is_file()
            note("its signature was not checked: give --key" if unchecked else "it is not signed")

    listed = shown[0] if len(shown) == 1 else {"exports": shown}
    return Result({"folder": str(folder), "sha256": digest, "signed": key is not None, **listed}, text())
