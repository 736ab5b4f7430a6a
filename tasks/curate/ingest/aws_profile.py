"""Keys of one named section of `~/.aws/credentials`, as the AWS command line keeps them.

Only what is written there counts: no command is run, no other profile followed, no metadata service asked. Called by
`s3.py` and, before anything is asked for, by `bring.py`.

Source: AWS CLI User Guide, "Configuration and credential file settings".
"""

from __future__ import annotations

import os
from configparser import Error, RawConfigParser
from pathlib import Path

from schemas.errors import ConfigError
from schemas.secrets import know_secret
from tasks.curate.ingest.s3_signature import Credentials

VARIABLE = "AWS_SHARED_CREDENTIALS_FILE"
_KEYS = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")


def profile_keys(profile: str) -> Credentials:
    """The keys of the profile; from here on they are masked wherever texts are written.

    Raises:
        ConfigError: TG0138, there is no such file or section, or it holds no keys.
    """
    path = Path(os.environ.get(VARIABLE) or "~/.aws/credentials").expanduser()
    parser = RawConfigParser(default_section="")  # as AWS's own: a section [default] is one like others
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _unfit(path, f"the file cannot be read: {error.strerror}") from None
    except (Error, UnicodeDecodeError):  # its text would hold lines of the file
        raise _unfit(path, "the file is no list of sections with `name = value`") from None
    if not parser.has_section(profile):
        raise _unfit(path, f"the file has no section [{profile}]")
    found = [parser.get(profile, name, fallback="").strip() for name in _KEYS]
    if not found[0] or not found[1]:
        others = sorted(
            set(parser.options(profile)) & {"credential_process", "role_arn", "sso_session", "source_profile"}
        )
        told = f"; it says `{others[0]}`, which is not followed here" if others else ""
        raise _unfit(path, f"section [{profile}] lacks {_KEYS[0] if not found[0] else _KEYS[1]}{told}")
    for name, value in zip(_KEYS[1:], found[1:], strict=True):
        know_secret(value, shown=f"({name} of profile {profile})")
    return Credentials(found[0], found[1], found[2] or None)


def _unfit(path: Path, told: str) -> ConfigError:
    return ConfigError(
        told,
        code="TG0138",
        where=f"source.profile ({path})",
        hint="name a profile that holds its keys, or write `access_key_id: ${env:NAME}` and `secret_access_key`",
    )
