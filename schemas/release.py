"""Records of a run outside the ledger: MLflow's, and a bundle's `serving.json`."""

from pydantic import Field

from schemas.artifacts import ModelRef, ServedCertificate, TrainedRef
from schemas.evaluation import DecodingSpec, SearchSpec
from schemas.spec import Frozen
from schemas.training import PromptSpec


class ServingSpec(Frozen):
    """`serving.json` of a bundle: everything needed to answer as for the gate."""

    name: str
    """Registered model name."""
    trained: TrainedRef
    """The result of training; `root` is `.`: the bundle itself."""
    prompt: PromptSpec
    decoding: DecodingSpec
    """As for the gate."""
    base: ModelRef
    """The base model; `root` is `.`: its place depends on the machine that serves."""
    base_files: dict[str, str]
    """File name -> sha256 of every file of the base model: another base is refused."""
    search: SearchSpec | None = None
    """How to find the passages that its prompt shows; their index is in the bundle. None if it shows none."""
    certificate: ServedCertificate | None = None
    """Which answers may be routed without a person; None if `evaluate.abstain` was not set."""


class DatasetRecord(Frozen):
    """A dataset of a run, by the sha256 of its content."""

    name: str
    context: str
    """`training`, `validation` or `evaluation`."""
    digest: str
    n_rows: int
    labels: dict[str, dict[str, int]] = Field(default={})
    """Label column -> its most frequent values -> rows."""


class RunRecord(Frozen):
    """One pipeline run as MLflow shows it, without ticket text."""

    run_id: str
    pipeline: str
    params: dict[str, str] = Field(default={})
    metrics: dict[str, float] = Field(default={})
    tags: dict[str, str] = Field(default={})
    description: str = ""
    """Verdict, champion and score, as Markdown."""
    datasets: tuple[DatasetRecord, ...] = ()
    scored: tuple[str, ...] = ()
    """Metrics that are the candidate's scores on the dataset with the context `evaluation`."""
    tracking_uri: str = ""
    """As declared in the pipeline; empty uses the environment."""
    experiment: str = "tunegate"
    files: tuple[str, ...] = ()
    """Files to show with the run, relative to the home folder."""
    verdict_files: tuple[str, ...] = ()
    """Those of its verdict, shown with the run and added to the version that it judged."""
    curves: str = ""
    """curves.parquet of the training, relative to the home folder."""
    items: str = ""
    """Table of the held-out items and their scores, without ticket text, relative to the home folder."""
    trials: str = ""
    """Table of the trainings to choose from, relative to the home folder; empty for a single training."""
