"""OpenSSF model signatures of exported folders, created and checked offline by `model_signing` with your own EC keys.

A manifest proves that files are intact, a signature also who made them. The signature is next to the folder, as
`FOLDER.sig`, and covers every file in it, including the manifest. The extra `signing` is imported inside functions.
"""

import logging
import os
from pathlib import Path
from typing import Any

from schemas.errors import SecurityError
from tasks.extras import need_extra
from tasks.storage.files import whole_file

PASSWORD = "TUNEGATE_SIGNING_PASSWORD"  # noqa: S105  # the variable's name


def signature_of(folder: Path) -> Path:
    """Path of a folder's signature: next to the folder, so that the folder still matches its manifest."""
    return folder.absolute().with_name(f"{folder.absolute().name}.sig")


def check_signing_key(key: Path) -> None:
    """Check that the key can be used, before any work is done.

    Raises:
        ConfigError: TG0112, the extra `signing` is not installed.
        SecurityError: TG0824, the key cannot be used.
    """
    _signer(key)


def sign_folder(folder: Path, *, key: Path) -> Path:
    """Write the folder's signature with a private EC key in PEM.

    Raises:
        SecurityError: as `check_signing_key`.
    """
    signer = _signer(key)
    signature = signature_of(folder)
    logging.getLogger("model_signing").setLevel(logging.ERROR)
    with whole_file(signature) as aside:
        signer.sign(folder.absolute(), aside)
    return signature


def check_signature(folder: Path, *, key: Path, signature: Path | None = None) -> None:
    """Compare every file of the folder with what the holder of the private key has signed.

    Args:
        folder: Every file in it must be signed, and every signed file must be in it.
        key: The public key, PEM.
        signature: None for the one next to the folder.

    Raises:
        ConfigError: TG0112, the extra is not installed.
        SecurityError: TG0824, the key cannot be used, there is no signature, it belongs to another key, or the folder
            differs from what was signed.
    """
    need_extra("signing", what="a signature", where="signing")
    from model_signing import verifying

    signature = signature or signature_of(folder)
    if not signature.is_file():
        raise SecurityError(
            "the folder has no signature",
            code="TG0824",
            where=str(signature),
            hint="`tunegate model export ... --sign KEY.pem` writes one",
        )
    try:
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=key)
    except Exception as error:  # libraries raise various errors for a file that is not a key
        raise _unusable(key, "public", error) from None
    try:
        verifier.verify(folder.absolute(), signature)
    except Exception as error:  # a signature is untrusted data: one that cannot be read is invalid
        why = str(error).partition("\n")[0][:300] if isinstance(error, ValueError) else type(error).__name__
        raise SecurityError(
            f"the folder differs from what the holder of this key signed: {why}",
            code="TG0824",
            where=str(folder),
            hint="do not use it",
        ) from None


def _signer(key: Path) -> Any:
    """`model_signing`'s signer, which reads the key immediately."""
    need_extra("signing", what="a signature", where="signing")
    from model_signing import signing

    # The password is annotated as text, but the code that reads the key takes bytes.
    password = os.environ.get(PASSWORD, "").encode() or None
    try:
        return signing.Config().use_elliptic_key_signer(private_key=key, password=password)
    except Exception as error:  # a missing file or password, not PEM, another kind of key
        raise _unusable(key, "private", error) from None


def _unusable(path: Path, half: str, error: Exception) -> SecurityError:
    return SecurityError(
        f"the {half} key cannot be used ({type(error).__name__}); use a PEM file with a secp256r1, secp384r1 or "
        f"secp521r1 key, and its password, if any, in {PASSWORD}",
        code="TG0824",
        where=str(path),
        hint="openssl ecparam -name prime256v1 -genkey -noout -out KEY.pem; "
        "openssl ec -in KEY.pem -pubout -out PUB.pem",
    )
