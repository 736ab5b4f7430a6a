"""What a pipeline's graph depends on besides its declaration: folders, earlier results, the registry, the cluster."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from flows.context.as_of import end_of
from flows.context.ingest import landed_folder
from flows.context.labels import rater_pairs, read_votes, settle_votes
from flows.context.previous_run import PreviousRun
from flows.graph.keys import digest_of
from flows.privacy.keys import load_forgotten
from flows.registry.address import registry_address
from flows.registry.feedback import feedback_database, state_of
from flows.registry.held import HeldCandidate
from flows.registry.state import RegistryState
from flows.workspace.ray_cluster import place_of
from flows.workspace.settings import Settings
from schemas.choice import TrainSection
from schemas.pipeline import DataPipeline, PipelineSpec
from tasks.assess.economics import find_gpu
from tasks.compute.spread import ClusterPlace
from tasks.corpus.build import fingerprint_corpus
from tasks.model.model_uri import REGISTRY
from tasks.monitor.feedback import FeedbackState
from tasks.privacy.hashes import Forgotten
from tasks.release.registered import RegisteredModel, find_registered
from tasks.sources.registry import fingerprint_source
from tasks.train.limits import TrainingLimits


@dataclass(frozen=True)
class GraphContext:
    """Read when a run or a plan begins; later changes affect the next run."""

    fingerprint: str
    """The source's content digest: new tickets make new keys."""
    root: Path
    """Folder of pipelines.yaml."""
    cache: Path
    """Downloads."""
    source_root: Path | None = None
    """Folder that the paths of the source start at; None for `root`."""
    articles: str = ""
    """Content digest of the help articles; empty without `evaluate.corpus`."""
    landed: Path | None = None
    """Where sources are ingested (`flows/context/ingest.py`)."""
    previous_run: PreviousRun = field(default_factory=PreviousRun)
    """Results of the last complete run."""
    registry_state: RegistryState = field(default_factory=RegistryState)
    """Champion, anchor and used evidence of the registered model."""
    held: HeldCandidate | None = None
    """The candidate that is judged again; None for a run that trains one."""
    forgotten: Forgotten | None = None
    """Customers to leave out."""
    feedback: FeedbackState | None = None
    """What agents did with suggestions; None if feedback is not declared or there is none."""
    feedback_database: Path | None = None
    trunks: Path | None = None
    """Where several trainings share the outputs of frozen layers; None for no sharing."""
    replies: Path | None = None
    """Where answers of an endpoint are kept by what was asked; None for the cache."""
    limits: TrainingLimits = field(default_factory=TrainingLimits)
    """Of all trainings of the run together."""
    as_of: str | None = None
    """Only tickets created by the end of this day, UTC, `2026-05-31`; None for all."""
    limits_examples: bool = False
    """The number of examples is set for this run alone (`RunRequest.limits_examples`)."""
    labels: Mapping[str, bool] = field(default_factory=dict)
    """Labelled answer -> whether people accept it (`flows/context/labels.py`)."""
    rater_pairs: tuple[int, int] = (0, 0)
    """Pairs of people's labels of one answer, and those that differ."""
    registered: RegisteredModel | None = None
    """The version of MLflow's registry that is judged; None unless `train.model` names one."""
    place: ClusterPlace | None = None
    """The cluster that runs trainings, answers and parts of redaction and dedup; None for this process."""

    @property
    def labels_digest(self) -> str:
        """Digest of the labels that count; empty without any."""
        return digest_of(self.labels) if self.labels else ""


def context_of(
    spec: DataPipeline,
    settings: Settings,
    *,
    root: Path,
    registry_state: RegistryState,
    previous_run: PreviousRun,
    as_of: str | None = None,
) -> GraphContext:
    """Read it for a pipeline; change nothing."""
    landed = landed_folder(settings, spec.name)
    context = GraphContext(
        fingerprint=fingerprint_source(spec.source, root=root, landed=landed),
        root=root,
        cache=settings.cache,
        landed=landed,
        previous_run=previous_run,
        registry_state=registry_state,
        forgotten=load_forgotten(settings),
        as_of=as_of,
        place=place_of(spec, settings),
    )
    if not isinstance(spec, PipelineSpec):
        return context
    votes = read_votes(settings.home, spec.name, before=as_of and end_of(as_of)) if spec.evaluate.labels else {}
    return replace(
        context,
        articles=fingerprint_corpus(spec.evaluate.corpus, root) if spec.evaluate.corpus else "",
        feedback=state_of(spec, settings.home) if as_of is None else None,
        feedback_database=feedback_database(settings.home, spec.registry.name),
        trunks=trunks_of(settings.home, spec.name),
        replies=replies_of(settings.home),
        limits=limits_of(spec.train),
        labels=settle_votes(votes),
        rater_pairs=rater_pairs(votes),
        registered=_registered(spec, settings),
    )


def _registered(spec: PipelineSpec, settings: Settings) -> RegisteredModel | None:
    address = spec.train.model or ""
    if not address.startswith(REGISTRY):
        return None
    return find_registered(address, uri=registry_address(spec.registry.tracking_uri, settings))


def limits_of(train: TrainSection) -> TrainingLimits:
    """Return the budget with the price of its machine.

    Raises:
        GateError: TG0612, the price book has no such machine, or is wrong.
    """
    budget = train.budget
    if budget is None:
        return TrainingLimits()
    usd = 0.0 if budget.machine is None else find_gpu(budget.machine, where="train.budget.machine").usd_per_hour
    return TrainingLimits(budget=budget, usd_per_hour=usd)


def replies_of(home: Path) -> Path:
    """Return the folder of answers that endpoints gave. It is removed whenever a customer is forgotten: nothing says
    whose ticket an answer is about."""
    return home / "scratch" / "replies"


def trunks_of(home: Path, pipeline: str) -> Path:
    """Return the folder of the pipeline's shared trunks; it is removed once the training is chosen."""
    return home / "scratch" / "trunks" / pipeline
