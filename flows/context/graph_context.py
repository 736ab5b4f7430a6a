"""What a pipeline's graph depends on besides its declaration: folders, earlier results, the registry, the cluster."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from flows.context.feedback import feedback_database, state_of
from flows.context.ingest import landed_folder
from flows.context.previous_run import Earlier
from flows.context.registry_state import Standing
from flows.privacy.keys import load_forgotten
from flows.workspace.ray_cluster import place_of
from flows.workspace.settings import Settings
from schemas.pipeline import PipelineSpec
from tasks.cluster.connect import Place
from tasks.curate.extract import fingerprint_source
from tasks.forget.hashes import Forgotten
from tasks.watch.feedback import FeedbackState


@dataclass(frozen=True)
class GraphContext:
    """Read when a run or a plan begins; what changes meanwhile is the next run's."""

    fingerprint: str
    """The source's content digest: new tickets make new keys."""
    root: Path
    """Folder of pipelines.yaml."""
    cache: Path
    """Downloads."""
    landed: Path | None = None
    """Where sources are ingested (`flows/context/ingest.py`)."""
    earlier: Earlier = field(default_factory=Earlier)
    """What the last complete run left."""
    standing: Standing = field(default_factory=Standing)
    """Champion, anchor and used evidence of the registered model."""
    forgotten: Forgotten | None = None
    """Customers whose rows are not read."""
    feedback: FeedbackState | None = None
    """What agents did with suggestions; None when none is declared or none is there."""
    feedback_database: Path | None = None
    trunks: Path | None = None
    """Where several trainings share what frozen layers computed; None for no sharing."""
    place: Place | None = None
    """The cluster that does trainings, answers and the parts of redaction and dedup; None for this process."""


def context_of(
    spec: PipelineSpec, settings: Settings, *, root: Path, standing: Standing, earlier: Earlier
) -> GraphContext:
    """Read it for a pipeline; changes nothing."""
    landed = landed_folder(settings, spec.name)
    return GraphContext(
        fingerprint=fingerprint_source(spec.source, root=root, landed=landed),
        root=root,
        cache=settings.cache,
        landed=landed,
        earlier=earlier,
        standing=standing,
        forgotten=load_forgotten(settings),
        feedback=state_of(spec, settings.home),
        feedback_database=feedback_database(settings.home, spec.registry.name),
        trunks=trunks_of(settings.home, spec.name),
        place=place_of(spec, settings),
    )


def trunks_of(home: Path, pipeline: str) -> Path:
    """Folder of the pipeline's shared trunks; it goes when the training is chosen."""
    return home / "scratch" / "trunks" / pipeline
