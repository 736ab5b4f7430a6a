"""Signatures of folders: unchanged or refused, with the real library and real keys."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from schemas.errors import ConfigError, SecurityError
from tasks.release.signing import PASSWORD, check_signature, check_signing_key, sign_folder, signature_of
from tasks.storage.sealed_folder import seal

pytestmark = pytest.mark.needs_extra("signing")

MakeKey = Callable[..., tuple[Path, Path]]


@pytest.fixture
def make_key(tmp_path: Path) -> MakeKey:
    """A pair of PEM files."""

    def make(
        name: str = "mine", *, curve: ec.EllipticCurve | None = None, password: bytes | None = None
    ) -> tuple[Path, Path]:
        key = ec.generate_private_key(curve or ec.SECP256R1())
        hidden = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        private, public = tmp_path / f"{name}.pem", tmp_path / f"{name}.pub"
        private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden))
        public.write_bytes(
            key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
        return private, public

    return make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small export."""
    folder = tmp_path / "export"
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(bytes(range(256)))
    (folder / "serving.json").write_text("{}")
    seal(folder)
    return folder


def test_a_signed_folder_is_verified_and_unchanged_by_signing(folder: Path, make_key: MakeKey) -> None:
    private, public = make_key()
    before = sorted(path.name for path in folder.rglob("*"))
    signature = sign_folder(folder, key=private)
    assert signature == signature_of(folder) == folder.parent / "export.sig"
    check_signature(folder, key=public)
    assert sorted(path.name for path in folder.rglob("*")) == before
    assert sorted(path.name for path in folder.parent.iterdir()) == ["export", "export.sig", "mine.pem", "mine.pub"]


def _change(folder: Path) -> None:
    (folder / "serving.json").write_text("{ }")


def _add(folder: Path) -> None:
    (folder / "evil.py").write_text("1")


def _remove(folder: Path) -> None:
    (folder / "adapter" / "adapter_model.safetensors").unlink()


def _seal_again(folder: Path) -> None:
    """Change a file and rewrite the manifest, which the manifest alone does not reveal."""
    (folder / "serving.json").write_text("{ }")
    seal(folder)


@pytest.mark.parametrize("tamper", [_change, _add, _remove, _seal_again])
def test_a_tampered_folder_is_refused(folder: Path, make_key: MakeKey, tamper: Callable[[Path], None]) -> None:
    private, public = make_key()
    sign_folder(folder, key=private)
    tamper(folder)
    with pytest.raises(SecurityError, match="TG0824"):
        check_signature(folder, key=public)


def test_another_key_and_a_forged_signature_are_refused(folder: Path, make_key: MakeKey) -> None:
    private, public = make_key()
    _, other = make_key("other")
    sign_folder(folder, key=private)
    with pytest.raises(SecurityError, match=r"TG0824"):
        check_signature(folder, key=other)
    for forged in (
        b"",
        b"{}",
        b"\xff\x00",
        b"[" * 2000,
        signature_of(folder).read_bytes().replace(b'"sig":', b'"sin":'),
    ):
        (folder.parent / "forged.sig").write_bytes(forged)
        with pytest.raises(SecurityError, match="TG0824"):
            check_signature(folder, key=public, signature=folder.parent / "forged.sig")
    with pytest.raises(SecurityError, match="TG0824"):
        check_signature(folder, key=public, signature=folder.parent / "absent.sig")


def test_the_password_of_an_encrypted_key_comes_from_the_environment(
    folder: Path, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = make_key(curve=ec.SECP384R1(), password=b"open-sesame")
    with pytest.raises(SecurityError, match=r"TG0824.*TUNEGATE_SIGNING_PASSWORD"):
        check_signing_key(private)
    monkeypatch.setenv(PASSWORD, "wrong")
    with pytest.raises(SecurityError, match="TG0824"):
        check_signing_key(private)
    monkeypatch.setenv(PASSWORD, "open-sesame")
    sign_folder(folder, key=private)
    check_signature(folder, key=public)


def test_a_file_that_is_not_a_key_of_an_allowed_curve_is_refused(
    folder: Path, make_key: MakeKey, tmp_path: Path
) -> None:
    text = tmp_path / "text.pem"
    text.write_text("hello")
    rsa_key = tmp_path / "rsa.pem"
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    rsa_key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    private, _ = make_key("odd", curve=ec.SECP256K1())
    for path in (text, rsa_key, private, tmp_path / "absent.pem"):
        with pytest.raises(SecurityError, match="TG0824"):
            sign_folder(folder, key=path)
    assert not signature_of(folder).exists()
    sign_folder(folder, key=make_key()[0])
    for path in (text, rsa_key, tmp_path / "absent.pem"):
        with pytest.raises(SecurityError, match="TG0824"):
            check_signature(folder, key=path)


def test_a_missing_extra_is_reported_with_what_to_install(
    folder: Path, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "model_signing" else found(name))
    with pytest.raises(ConfigError, match=r"TG0112.*extra `signing`.*model_signing"):
        check_signing_key(make_key()[0])
