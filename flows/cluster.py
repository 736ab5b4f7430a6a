"""`engine: ray`: which cluster a pipeline uses, and whether what it needs is there. Starts nothing.

Objects made here connect when the first part of a step is to be done. Called by `flows/session.py`,
`flows/commands/plan.py` and `flows/health.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from schemas.errors import ConfigError
from tasks.cluster.connect import Place

if TYPE_CHECKING:
    from flows.engine.step import Step
    from flows.settings import Settings
    from schemas.pipeline import PipelineSpec
    from tasks.cluster.ray_spread import RaySpread


def place_of(spec: PipelineSpec, settings: Settings) -> Place | None:
    """The cluster and storage of a pipeline with `engine: ray`; None for `engine: local`.

    Raises:
        ConfigError: TG0119, `RAY_ADDRESS` or `TUNEGATE_SHARED` is not set.
    """
    if spec.engine == "local":
        return None
    for variable, value, hint in (
        ("RAY_ADDRESS", settings.ray_address, "export RAY_ADDRESS=10.0.0.5:6379, as `ray start --head` prints it; "
         "tunegate starts no cluster"),
        ("TUNEGATE_SHARED", settings.shared_storage, "export TUNEGATE_SHARED=file:///mnt/shared, a folder that is "
         "mounted on every node, or s3://bucket/prefix"),
    ):  # fmt: skip
        if value is None:
            raise ConfigError(
                f"`engine: ray` needs {variable}, which is not set",
                code="TG0119",
                where=f"{spec.name}.engine",
                hint=hint,
            )
    return Place(settings.ray_address or "", settings.shared_storage or "")


def spread_of(place: Place | None) -> RaySpread | None:
    """What does the parts of steps on the cluster; None for one process."""
    if place is None:
        return None
    from tasks.cluster.ray_spread import RaySpread

    return RaySpread(place)


def on_cluster(steps: Iterable[Step], place: Place | None) -> list[Step]:
    """The same steps, whose trainings and answers are had from the cluster; as they are where there is none."""
    if place is None:
        return list(steps)
    from tasks.cluster.answers import AnsweringOnRay
    from tasks.cluster.train_driver import TrainingOnRay
    from tasks.model.generate import generate_answers
    from tasks.train.launch import train_model

    where: dict[Any, dict[str, Any]] = {
        train_model: {"place": TrainingOnRay(place)},
        generate_answers: {"answering": AnsweringOnRay(place)},
    }
    return [replace(step, context={**step.context, **where.get(step.run, {})}) for step in steps]


def check_cluster(spec: PipelineSpec, settings: Settings) -> Place | None:
    """Is all there that the pipeline's engine needs? Asks the address and the storage, and no node.

    Raises:
        ConfigError: TG0112 the extra is missing, TG0119 a variable is.
        StorageError: TG0568, the storage cannot be written and read.
        ServiceError: TG0723, nobody listens at the address.
    """
    place = place_of(spec, settings)
    if place is None:
        return None
    from tasks.cluster.connect import check_address, check_extra
    from tasks.cluster.shared import Shared

    check_extra()
    check_address(place.address)
    with Shared(place.shared).probe():
        pass
    return place
