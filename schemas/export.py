"""What an export is, and what its manifest says of it (`tunegate model export`)."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from schemas.verdicts import Verdict

PromotionStatus = Literal["champion", "former champion", "never promoted"]


class ExportOrigin(BaseModel):
    """`export` in the manifest of an exported folder: where it comes from, by digests. Holds no time, so that the
    same export has the same bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: str
    """As `tunegate model export --format` names it; earlier versions wrote `gguf` as well."""
    name: str
    """Registered model name."""
    version: str
    standing: PromotionStatus
    promoted: bool
    """Was it ever champion? False marks what no gate and no person has let into service."""
    let_in_by: str
    """`promote` (by the gate), `approve` or `force` (by a person past the gate); empty when it never was."""
    verdict: Verdict
    reason: str
    """Of the verdict."""
    run_id: str
    pipeline: str
    method: str
    base_uri: str
    base_sha256: str
    """Digest of the base model's directory."""
    trained_sha256: str
    """Digest of adapter or weights as they were evaluated."""
    bundle_sha256: str
    """Digest of the bundle that was registered."""
    verdict_sha256: str
    """Digest of the decision."""
    run_sha256: str
    """Digest of all that decided the run: configuration, tickets, base model, code, libraries."""
    training_set_sha256: str = ""
    """openai-jsonl: digest of the encoded training set that the rows were taken from."""
    checked: dict[str, float] = {}
    """What was measured when it was compared with what the gate judged."""
