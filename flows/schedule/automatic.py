"""Which pipelines and stages Prefect runs."""

from collections.abc import Iterator

from schemas.errors import ConfigError
from schemas.load import PipelineFile
from schemas.pipeline import DataPipeline

TAG = "tunegate"
"""On every deployment that tunegate creates."""


def placed_stages(loaded: PipelineFile) -> Iterator[tuple[str, str, str]]:
    """Yield (pipeline, stage, pool) of every placed stage."""
    for name, spec in loaded.pipelines.items():
        for stage, pool in spec.place.pools().items():
            yield name, stage, pool


def automatic_pipelines(loaded: PipelineFile) -> dict[str, DataPipeline]:
    """Return the pipelines with a cron or triggers, in the order of the file.

    Raises:
        ConfigError: TG0159, there is none.
    """
    found = {name: spec for name, spec in loaded.pipelines.items() if spec.schedule.cron or spec.schedule.triggers}
    if not found and not any(placed_stages(loaded)):
        raise ConfigError(
            "no pipeline has a cron, triggers or a placed stage", code="TG0159", where=str(loaded.path),
            hint="add `schedule: {cron: ...}` to one",
        )  # fmt: skip
    return found
