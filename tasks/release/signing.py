"""OpenSSF model signatures of exported folders: made and checked with keys of one's own, offline.

A manifest says that files are whole, a signature also whose they are. The signature lies beside the folder, as
`FOLDER.sig`, and covers every file in it, the manifest included. The extra `signing` (model-signing) is imported inside
functions. It knows nothing of candidates. Called by `flows/commands/export.py` and `flows/commands/verify.py`.

Source: OpenSSF Model Signing Specification v1.0 (a Sigstore bundle with an in-toto statement), with an EC key.
"""

from __future__ import annotations

import logging
import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.errors import SecurityError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

PASSWORD = "TUNEGATE_SIGNING_PASSWORD"  # noqa: S105  # the variable's name
CURVES = ("secp256r1", "secp384r1", "secp521r1")
MAX_KEY_BYTES = 1 << 16


def signature_of(folder: Path) -> Path:
    """Where a folder's signature lies: beside it, so that the folder stays what its manifest says."""
    return folder.absolute().with_name(f"{folder.absolute().name}.sig")


def check_signing_key(key: Path) -> None:
    """Raise before any work is done.

    Raises:
        SecurityError: TG0827, the extra `signing` is not installed; TG0826, the key cannot be used.
    """
    _check_extra()
    _load_private(key)


def sign_folder(folder: Path, *, key: Path) -> Path:
    """Write the folder's signature with a private EC key in PEM, and check it with the key's public half.

    Raises:
        SecurityError: as `check_signing_key`.
    """
    _check_extra()
    private, password = _load_private(key)
    from cryptography.hazmat.primitives import serialization
    from model_signing import signing

    signature = signature_of(folder)
    aside = signature.with_name(f".{signature.name}.{os.getpid()}.tmp")
    public = aside.with_suffix(".pub")
    logging.getLogger("model_signing").setLevel(logging.ERROR)
    try:
        public.write_bytes(
            private.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
        # Its own annotation says text; what reads the key takes bytes.
        signer = signing.Config().use_elliptic_key_signer(private_key=key, password=password)
        signer.sign(folder.absolute(), aside)
        check_signature(folder, key=public, signature=aside)
        aside.replace(signature)
    finally:
        aside.unlink(missing_ok=True)
        public.unlink(missing_ok=True)
    return signature


def check_signature(folder: Path, *, key: Path, signature: Path | None = None) -> None:
    """Compare every file of the folder with what the holder of the private key has signed.

    Args:
        folder: Everything in it must be signed, and everything signed must be in it.
        key: The public key, PEM.
        signature: None takes the one beside the folder.

    Raises:
        SecurityError: TG0827, the extra is not installed; TG0826, the key cannot be used; TG0825, there is no
            signature; TG0824, it is another key's, or the folder is not what was signed.
    """
    _check_extra()
    from cryptography.exceptions import InvalidSignature
    from model_signing import verifying

    signature = signature or signature_of(folder)
    if not signature.is_file():
        raise SecurityError(
            "the folder has no signature",
            code="TG0825",
            where=str(signature),
            hint="`tunegate export ... --sign KEY.pem` writes one",
        )
    verifier = verifying.Config()
    try:
        verifier.use_elliptic_key_verifier(public_key=key)
    except Exception as error:  # whatever the libraries below make of a file that is no key
        raise _unusable(key, "public", type(error).__name__) from None
    try:
        verifier.verify(folder.absolute(), signature)
    except InvalidSignature:
        raise _not_signed(folder, "another key has signed it") from None
    except Exception as error:  # a signature is foreign data: what cannot be read is no signature
        told = str(error).partition("\n")[0][:300] if isinstance(error, ValueError) else type(error).__name__
        raise _not_signed(folder, told) from None


def _check_extra() -> None:
    if find_spec("model_signing") is None or find_spec("OpenSSL") is None:
        raise SecurityError(
            "signatures need the extra `signing` (model-signing, pyOpenSSL), which is not installed",
            code="TG0827",
            where="signing",
            hint="uv pip install -e '.[signing]'",
        )


def _load_private(path: Path) -> tuple[ec.EllipticCurvePrivateKey, bytes | None]:
    """The key and its password."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    password = os.environ.get(PASSWORD, "").encode() or None
    try:
        with path.open("rb") as stream:
            key = serialization.load_pem_private_key(stream.read(MAX_KEY_BYTES), password)
    except OSError as error:
        raise _unusable(path, "private", error.strerror or type(error).__name__) from None
    except (ValueError, TypeError) as error:  # TypeError: a password is missing, or there is none to give
        raise _unusable(path, "private", f"{type(error).__name__}, perhaps for its password in {PASSWORD}") from None
    except Exception as error:
        raise _unusable(path, "private", type(error).__name__) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in CURVES:
        raise _unusable(path, "private", f"it is a {type(key).__name__.strip('_')}")
    return key, password


def _unusable(path: Path, half: str, why: str) -> SecurityError:
    return SecurityError(
        f"the {half} key cannot be used: {why}; allowed are PEM files of {', '.join(CURVES)}",
        code="TG0826",
        where=str(path),
        hint="openssl ecparam -name prime256v1 -genkey -noout -out KEY.pem; "
        "openssl ec -in KEY.pem -pubout -out PUB.pem",
    )


def _not_signed(folder: Path, why: str) -> SecurityError:
    return SecurityError(
        f"the folder is not what was signed: {why}", code="TG0824", where=str(folder), hint="do not use it"
    )
