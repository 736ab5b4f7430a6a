"""The section `place` of `pipelines.yaml`: the Prefect work pool of each stage.

It does not affect results, so it is not part of what a verdict depends on.
"""

from __future__ import annotations

from pydantic import Field

from schemas.spec import Spec

PoolName = str


class PlaceSpec(Spec):
    """`place`: stage -> work pool; other stages run where the run was started."""

    curate: PoolName | None = Field(default=None, min_length=1, max_length=200)
    finetune: PoolName | None = Field(default=None, min_length=1, max_length=200)
    assess: PoolName | None = Field(default=None, min_length=1, max_length=200)
    release: PoolName | None = Field(default=None, min_length=1, max_length=200)
    """Only the bundle: ledger, promotion, report and MLflow stay where the ledger is."""
    wait_for_worker: float = Field(default=10.0, gt=0, le=1440)
    """Minutes to wait for a worker before the run ends."""

    def pool_of(self, stage: str) -> str | None:
        """The stage's pool; None if it runs where the run was started."""
        pool = getattr(self, stage)
        return None if pool is None else str(pool)

    def pools(self) -> dict[str, str]:
        """Stage -> pool, of the placed stages in order."""
        found = {stage: self.pool_of(stage) for stage in ("curate", "finetune", "assess", "release")}
        return {stage: pool for stage, pool in found.items() if pool is not None}
