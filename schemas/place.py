"""The section `place` of `pipelines.yaml`: which work pool of Prefect does a stage.

It changes nothing of what a run makes, so it is no part of what decides a verdict.
"""

from __future__ import annotations

from pydantic import Field

from schemas.spec import Spec

PoolName = str


class PlaceSpec(Spec):
    """`place`: stage -> work pool; a stage that is not named runs where the run was started."""

    curate: PoolName | None = Field(default=None, min_length=1, max_length=200)
    finetune: PoolName | None = Field(default=None, min_length=1, max_length=200)
    assess: PoolName | None = Field(default=None, min_length=1, max_length=200)
    release: PoolName | None = Field(default=None, min_length=1, max_length=200)
    """The bundle alone: ledger, promotion, report and MLflow are the business of whoever holds the ledger."""
    wait_for_worker: float = Field(default=10.0, gt=0, le=1440)
    """Minutes until a pool without a worker ends the run."""

    def pool_of(self, stage: str) -> str | None:
        """The pool that does the stage; None for where the run was started."""
        pool = getattr(self, stage)
        return None if pool is None else str(pool)

    def pools(self) -> dict[str, str]:
        """Stage -> pool, of the placed stages in order."""
        found = {stage: self.pool_of(stage) for stage in ("curate", "finetune", "assess", "release")}
        return {stage: pool for stage, pool in found.items() if pool is not None}
