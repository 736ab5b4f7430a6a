"""Which commit a branch or tag of a Hugging Face repository is now: what a pipeline may name instead of it.

Asks the hub; for `tunegate pin` alone. Runs and plans read what is pinned.
"""

import os
import re
from typing import Literal

from schemas.errors import ConfigError, ServiceError

RepoKind = Literal["model", "dataset"]
_NAMED = re.compile(r"(?:hf://)?(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^\s@#]+))?")


def parse_hub_name(name: str) -> tuple[str, str]:
    """Split `org/name@branch` into repository and revision, `main` if there is none.

    Raises:
        ConfigError: TG0103, it has another form.

    >>> parse_hub_name("hf://org/name@v1.2"), parse_hub_name("org/name")
    (('org/name', 'v1.2'), ('org/name', 'main'))
    """
    found = _NAMED.fullmatch(name)
    if found is None:
        raise ConfigError(
            f"{name!r} is no repository of the hub; allowed: org/name, or org/name@BRANCH_OR_TAG", code="TG0103",
            where="pin", hint="tunegate pin HuggingFaceTB/SmolLM2-135M-Instruct@main",
        )  # fmt: skip
    return found["repo"], found["revision"] or "main"


def resolve_commit(repo: str, revision: str, *, kind: RepoKind = "model") -> str:
    """Return the commit sha, 40 hex digits. The hub is that of HF_ENDPOINT; HF_TOKEN opens gated repositories.

    Raises:
        ServiceError: TG0720, the hub does not answer, or has no such repository or revision.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # its own client

    try:
        api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
        sha = api.repo_info(repo, revision=revision, repo_type=kind, timeout=30).sha
    except (httpx.HTTPError, OSError, ValueError) as error:  # the hub's own errors are of these
        status = getattr(getattr(error, "response", None), "status_code", None)
        why = f"it answers {status}" if status else type(error).__name__
        raise ServiceError(
            f"the hub did not say which commit {repo}@{revision} is: {why}", code="TG0720", where=repo,
            hint="check the name, the network, HF_TOKEN and HF_HUB_OFFLINE",
        ) from None  # fmt: skip
    if not sha:
        raise ServiceError(f"the hub names no commit of {repo}@{revision}", code="TG0720", where=repo)
    return sha
