"""Commands of earlier versions: those that moved into a group still work in this version, removed ones name their
replacement."""

from schemas.errors import ConfigError

_MOVED = {
    "data": ("curate", "funnel", "quarantine", "sample", "preview", "lineage", "forget"),
    "model": ("champion", "history", "promote", "approve", "rollback", "export", "verify", "endpoint", "feedback"),
    "study": ("estimate", "advise", "cost", "ablate", "compare", "reproduce"),
    "ops": ("up", "down", "serve", "tick", "deploy", "doctor", "reconcile", "migrate", "metrics", "schema"),
}
GROUP_OF = {name: group for group, names in _MOVED.items() for name in names}
"""Command that was at the top level in the previous version -> its group."""

REMOVED_COMMANDS: dict[str, str] = {
    "sbom": "`tunegate data lineage MODEL/VERSION` says what a model was made from; `make sbom` lists a release's "
    "packages",
    "completion": "`tunegate --install-completion`, or `--show-completion` to see the script",
    "ui": "`tunegate report RUN` and `tunegate study compare RUN RUN`; `tunegate ops up` starts the pages of Prefect "
    "and MLflow",
}
"""Name of each removed command: what to use instead, as a hint."""


def refuse_removed(command: str) -> None:
    """Return if the command exists or never existed.

    Raises:
        ConfigError: TG0100, the command was removed; the hint names its replacement.
    """
    if command in REMOVED_COMMANDS:
        raise ConfigError(
            f"`tunegate {command}` was removed", code="TG0100", where="command line", hint=REMOVED_COMMANDS[command]
        )
