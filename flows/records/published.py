"""The published warehouse of a pipeline: `warehouse/PIPELINE/warehouse.duckdb` below the home folder."""

from pathlib import Path

from schemas.errors import ConfigError


def warehouse_folder(home: Path, pipeline: str) -> Path:
    return home / "warehouse" / pipeline


def published_database(home: Path, pipeline: str) -> Path:
    """The pipeline's warehouse as people open it.

    Raises:
        ConfigError: TG0159, it has not been curated yet.
    """
    database = warehouse_folder(home, pipeline) / "warehouse.duckdb"
    if not database.is_file():
        raise ConfigError(
            f"{pipeline} has no warehouse yet",
            code="TG0159",
            where=str(database),
            hint=f"tunegate data curate {pipeline}",
        )
    return database
