"""The origin of an export in its manifest (`tunegate model export`)."""

from typing import Literal

from pydantic import Field

from schemas.spec import Frozen
from schemas.verdicts import Verdict

PromotionStatus = Literal["champion", "former champion", "never promoted"]


class ExportOrigin(Frozen):
    """`export` in the manifest of an exported folder: its origin, by digests. Without a time, so that the same export
    has the same bytes."""

    format: str
    """As in `tunegate model export --format`."""
    name: str
    """Registered model name."""
    version: str
    standing: PromotionStatus
    promoted: bool
    """Whether it ever was champion, by the gate or by a person."""
    let_in_by: str
    """`promote` (by the gate), `approve` or `force` (by a person, whatever the gate said); empty if it never was."""
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
    """Digest of the evaluated adapter or weights."""
    bundle_sha256: str
    """Digest of the registered bundle."""
    verdict_sha256: str
    """Digest of the decision."""
    run_sha256: str
    """Digest of everything that the run depends on: configuration, tickets, base model, code, libraries."""
    training_set_sha256: str = ""
    """openai-jsonl: digest of the encoded training set with the rows."""
    checked: dict[str, float] = Field(default={})
    """Measurements of the comparison with what the gate judged."""


class DataOrigin(Frozen):
    """`export` in the manifest of exported data (`tunegate data export`), without a time as well."""

    format: str
    """As in `tunegate data export --format`."""
    pipeline: str
    snapshot_id: str
    """Digest of every curation step's rows."""
    run_id: str
    """The run that made the snapshot."""
    run_sha256: str
    """As in `ExportOrigin`; empty if the ledger no longer has the run."""
    redacted: bool
    """Whether a step `redact` replaced personal data."""
    rows: dict[str, int] = Field(default={})
    """Split -> rows written."""
    n_left_out: int = 0
    """Tickets that make no conversation; `left_out.jsonl` lists them."""
