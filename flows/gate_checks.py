"""The steps that measure what the gate checks beside its rules; `flows/assess.py` runs them before the gate."""

from __future__ import annotations

from flows.engine.step import Step
from schemas.evidence import CheckEvidence
from schemas.pipeline import PipelineSpec
from tasks.assess.contamination import check_contamination


def check_steps(spec: PipelineSpec) -> list[Step]:
    """A step per declared check. They take `decontaminate`, `encode`, `items`, `base_model` and `train`."""
    steps = []
    gates = spec.gates
    if gates.contamination is not None:
        steps.append(
            Step(
                "contamination",
                check_contamination,
                CheckEvidence,
                inputs={"dataset": "encode", "splits": "decontaminate", "items": "items"},
                params={"spec": gates.contamination, "decontaminate": spec.curate.decontaminate},
                libraries=("duckdb", "numba", "numpy", "pyarrow", "scipy"),
            )
        )
    return steps
