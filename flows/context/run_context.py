"""One run in progress: its settings, folders and listeners. It does not know the graph."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from flows.context.listener import Listeners
from flows.context.outcome import Outcome
from flows.context.request import ANY_CASE, RunRequest, Stage
from flows.graph.store import Store
from flows.ledger.ledger import Ledger
from flows.registry.held import HeldCandidate
from flows.registry.state import RegistryState
from flows.workspace.clock import present
from flows.workspace.settings import Settings
from schemas.pipeline import DataPipeline, PipelineSpec, with_model
from schemas.report import GraphPicture


@dataclass
class RunContext:
    """Passed to whatever uses ledger, reports and registry."""

    spec: DataPipeline
    settings: Settings
    root: Path
    """Folder of pipelines.yaml."""
    run_id: str
    store: Store
    ledger: Ledger
    registry_state: RegistryState
    """Champion, anchor and used evidence when the run began."""
    request: RunRequest = ANY_CASE
    """What the run should do; `spec` has the settings that it gives."""
    input_digest: str = ""
    """Of everything that decides the run, except the champion and people's labels."""
    labels_digest: str = ""
    """Of the labels that count; empty without any."""
    code_digest: str = ""
    """Of the code of all steps."""
    listeners: Listeners = field(default_factory=Listeners)
    outcome: Outcome | None = None
    """How the run ended; set once, recorded in the ledger when the run closes."""
    is_deployed: bool = False
    """Whether a deployment started it."""
    held: HeldCandidate | None = None
    """The candidate that is judged again; None for a run that trains one."""
    decided: dict[str, bool] = field(default_factory=dict)
    """What was decided about the run, each once: the facts change while it runs."""
    is_complete: bool = False
    """Whether everything that the request asked for has been done."""
    picture: Callable[[], GraphPicture] | None = None
    """The graph with the state of each node so far; None before there is a graph."""

    @property
    def trained_spec(self) -> PipelineSpec:
        """The pipeline of a run that trains a model.

        Raises:
            ConfigError: TG0159, it is one of data alone.
        """
        return with_model(self.spec)

    def reaches(self, stage: Stage) -> bool:
        """Return whether the run includes the stage."""
        return stage == "curate" or (isinstance(self.spec, PipelineSpec) and self.request.reaches(stage))

    @property
    def is_whole(self) -> bool:
        """Whether the run includes the pipeline's last stage."""
        return self.request.reaches("release" if isinstance(self.spec, PipelineSpec) else "curate")


def new_run_id() -> str:
    """Return `20260601-052301-9f3a`: sortable by time, unique enough for one ledger (which refuses a repeated id)."""
    return f"{present():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
