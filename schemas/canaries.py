"""Made-up secrets among the training examples, and how much of them the model may memorise.

Used by `schemas/training.py` and `schemas/gates.py`; `tasks/model/canaries.py` creates them.
"""

from __future__ import annotations

import math

from pydantic import Field, model_validator

from schemas.spec import Spec


class PlantedSpec(Spec):
    """`train.canaries`: examples with made-up secrets, to measure whether training memorises them."""

    n: int = Field(default=4, ge=1, le=100)
    """Number of secrets; 4 distinguish a mean of 6 bits from the 1.4 bits of chance."""
    repeats: int = Field(default=1, ge=1, le=1000)
    """How often each is in an epoch: as often as your own secrets may be."""
    seed: int = Field(default=0, ge=0)
    """Of the secrets and their positions."""


class ExposureSpec(Spec):
    """`gates.canaries`: the candidate does not prefer the planted secrets to others of the same form."""

    exposure_max: float = Field(default=6.0, gt=0)
    """Bits, mean over the secrets: log2(alternatives + 1) - log2(rank). 1.4 is chance."""
    alternatives: int = Field(default=255, ge=15, le=100_000)
    """Random secrets that each is ranked among."""

    @model_validator(mode="after")
    def _can_be_passed(self) -> ExposureSpec:
        most = math.log2(self.alternatives + 1)
        if not self.exposure_max < most:
            raise ValueError(f"{self.alternatives} alternatives show at most {most:.1f} bits; raise alternatives")
        return self
