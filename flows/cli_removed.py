"""Commands that earlier versions had: who types one reads what replaces it."""

from __future__ import annotations

from schemas.errors import ConfigError

REMOVED_COMMANDS: dict[str, str] = {
    "sbom": "`tunegate lineage MODEL/VERSION` says what a model was made from; `make sbom` lists a release's packages",
    "completion": "`tunegate --install-completion`, or `--show-completion` to see the script",
    "ui": "`tunegate report RUN` and `tunegate compare RUN RUN`; `tunegate up` starts the pages of Prefect and MLflow",
}
"""Name of each removed command: what to use instead, as a hint."""


def refuse_removed(arguments: list[str]) -> None:
    """Return if the command exists or never existed.

    Raises:
        ConfigError: TG0100, the command was removed; the hint names its replacement.
    """
    command = next((argument for argument in arguments if not argument.startswith("-")), "")
    if command in REMOVED_COMMANDS:
        raise ConfigError(
            f"`tunegate {command}` was removed", code="TG0100", where="command line", hint=REMOVED_COMMANDS[command]
        )
