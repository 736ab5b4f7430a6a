"""`engine: ray`: which cluster a pipeline uses, and whether everything it needs is available. Starts nothing.

The only door to `tasks/cluster`, which is imported inside functions: it is optional.

Objects made here connect when the first part of a step is due.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flows.workspace.settings import Settings
from schemas.errors import ConfigError
from schemas.pipeline import DataPipeline
from tasks.compute.spread import ClusterPlace
from tasks.model.generate import IN_THIS_PROCESS, BatchAnswering
from tasks.train.launch import THIS_MACHINE
from tasks.train.place import TrainingPlace

if TYPE_CHECKING:
    from tasks.cluster.nodes import CheckedNode
    from tasks.cluster.ray_spread import RaySpread


def place_of(spec: DataPipeline, settings: Settings) -> ClusterPlace | None:
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
    return ClusterPlace(settings.ray_address or "", settings.shared_storage or "")


def spread_of(place: ClusterPlace | None) -> RaySpread | None:
    """Return what runs parts of steps on the cluster; None for one process."""
    if place is None:
        return None
    from tasks.cluster.ray_spread import RaySpread

    return RaySpread(place)


def training_place(place: ClusterPlace | None) -> TrainingPlace:
    """Return where trainings run: the cluster, or a process of this machine."""
    if place is None:
        return THIS_MACHINE
    from tasks.cluster.train_driver import TrainingOnRay

    return TrainingOnRay(place)


def answering_of(place: ClusterPlace | None) -> BatchAnswering:
    """Return what answers prompts: the cluster, or this process."""
    if place is None:
        return IN_THIS_PROCESS
    from tasks.cluster.answers import AnsweringOnRay

    return AnsweringOnRay(place)


def check_cluster(spec: DataPipeline, settings: Settings) -> ClusterPlace | None:
    """Check that everything the pipeline's engine needs is available: the address and the storage, but no node.

    Raises:
        ConfigError: TG0112 the extra is missing, TG0119 a variable is.
        StorageError: TG0568, the storage cannot be written and read.
        ServiceError: TG0723, nothing listens at the address.
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


def nodes_of(place: ClusterPlace) -> list[CheckedNode]:
    """Join the cluster and return what is wrong with each of its nodes, if anything."""
    from tasks.cluster.nodes import inspect_nodes

    return list(inspect_nodes(place))


def clear_shared(scratch: Path) -> None:
    """Remove what trainings of this scratch folder have left on a cluster's storage."""
    from tasks.cluster.depot import clear_marked

    clear_marked(scratch)
