"""Curation on a real two-node cluster: the digests of one process, even if a node is killed."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows.context.graph_context import GraphContext
from flows.curate import curate
from flows.graph.execute import NodeOutcome, Run, drive, run_plainly
from flows.graph.graph import Graph, Node
from flows.graph.store import Store
from flows.views import doctor as health
from flows.views.doctor import Patient, examine
from flows.workspace.ray_cluster import check_cluster, place_of
from flows.workspace.settings import load_settings
from schemas.artifacts import Artifact
from schemas.pipeline import PipelineSpec
from tasks.cluster.nodes import LIBRARIES
from tasks.cluster.ray_spread import RaySpread
from tasks.compute.spread import ClusterPlace
from tasks.sources.registry import fingerprint_source
from tests.flows.workspace.test_ray_cluster import DECLARED
from tests.support.ray_cluster import TwoNodes
from tests.support.specs import pipeline_spec

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own FutureWarning


def pipeline(engine: str = "ray") -> PipelineSpec:
    return pipeline_spec(
        engine=engine,
        source={"kind": "generated", "n_tickets": 3000, "n_customers": 300, "seed": 5},
        schema={"fail_above": 0.2},
        curate={"steps": [{"uses": "redact"}, {"uses": "dedup", "threshold": 0.6}]},
    )


def graph_of(spec: PipelineSpec, place: ClusterPlace | None, *, folder: Path) -> Graph:
    """The graph of the curation stage."""
    graph = Graph()
    fingerprint = fingerprint_source(spec.source, root=Path())
    curate(graph, spec, GraphContext(fingerprint, root=folder, cache=folder, place=place))
    return graph


def curated(spread: RaySpread | None, home: Path) -> tuple[dict[str, Artifact], dict[str, str]]:
    """Curate in a new store; return results and keys of all steps."""
    graph = graph_of(pipeline("local"), None, folder=home)
    if spread is not None:
        graph.nodes["redact"].arguments["spread"] = spread
    run = Run(graph, Store(home))

    # Ray can start nodes only from this thread.
    def on_this_thread(node: Node, outcome: NodeOutcome | None) -> Future[NodeOutcome]:
        future: Future[NodeOutcome] = Future()
        future.set_result(outcome or run.make(node))
        return future

    drive(run, on_this_thread, only=lambda node: node.kind == "step")
    done = {name: outcome.result for name, outcome in run.outcomes.items()}
    return done, {name: outcome.key for name, outcome in run.outcomes.items()}


def digests(done: dict[str, Artifact]) -> dict[str, str]:
    """Digests of all steps except the warehouse: DuckDB writes other bytes each time."""
    return {name: result.digest for name, result in done.items() if name != "warehouse"}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Artifact], dict[str, str]]:
    return curated(None, tmp_path_factory.mktemp("local"))


class Killing(RaySpread):
    """Kills a node after each of the first two results."""

    def __init__(self, cluster: TwoNodes) -> None:
        super().__init__(cluster.place)
        self._cluster = cluster
        self.n_killed = 0

    @property
    def n_parts(self) -> int:
        return 4

    def each(self, work: Callable[..., Any], parts: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        for result in super().each(work, parts):
            self._kill()
            yield result

    def _kill(self) -> None:
        if self.n_killed < 2:
            self._cluster.renew_second()
            self._cluster.kill(self._cluster.second)
            self.n_killed += 1


def test_the_cluster_gives_the_digests_of_one_process(both: TwoNodes, local: Any, tmp_path: Path) -> None:
    before = set(both.shared.rglob("*"))  # base models of other tests remain
    done, keys = curated(RaySpread(both.place), tmp_path)
    assert digests(done) == digests(local[0])
    assert keys == local[1]
    assert done["dedup"].rows.n_merged > 100
    assert set(both.shared.rglob("*")) == before  # no tickets remain on the shared storage


def test_a_node_that_is_killed_repeatedly_changes_no_digest(both: TwoNodes, local: Any, tmp_path: Path) -> None:
    spread = Killing(both)
    done, _ = curated(spread, tmp_path)
    assert spread.n_killed == 2
    assert done["redact"].digest == local[0]["redact"].digest


def test_a_result_of_either_engine_is_reused_by_the_other(local: Any) -> None:
    done, _ = local
    spec = pipeline()
    place = place_of(
        spec, replace(load_settings(Path()), ray_address="10.0.0.5:6379", shared_storage="file:///nowhere")
    )
    run = Run(graph_of(spec, place, folder=Path()), Store(done["dedup"].root.parents[2]))
    assert isinstance(run.graph.nodes["redact"].arguments["spread"], RaySpread)
    run_plainly(run, only=lambda node: node.kind == "step")  # nothing listens at the address
    assert {name for name, outcome in run.outcomes.items() if not outcome.reused} == set()


def test_every_library_of_a_spread_step_is_compared_between_nodes(both: TwoNodes) -> None:
    spec = pipeline_spec(
        engine="ray", curate={"steps": [{"uses": "redact", "names": {"mode": "sample"}}, {"uses": "dedup"}]}
    )
    nodes = graph_of(spec, both.place, folder=Path()).nodes.values()
    spread = [node for node in nodes if node.arguments.get("spread") is not None]
    assert [node.name for node in spread] == ["redact"]
    assert {name for node in spread for name in node.info.libraries} <= set(LIBRARIES)


def test_plan_and_doctor_check_address_storage_and_nodes(
    both: TwoNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", both.place.address)
    monkeypatch.setenv("TUNEGATE_SHARED", both.place.shared)
    (tmp_path / "pipelines.yaml").write_text(DECLARED)
    settings = load_settings(tmp_path / "pipelines.yaml")
    assert check_cluster(pipeline(), settings) == both.place
    patient = Patient(settings, tmp_path / "pipelines.yaml", {})
    assert [(finding.what, finding.state) for finding in examine(health.cluster, patient)] == [("node", "ok")] * 2
    monkeypatch.setenv("TUNEGATE_SHARED", "memory://driver-alone")
    patient = Patient(load_settings(tmp_path / "pipelines.yaml"), tmp_path / "pipelines.yaml", {})
    found = list(examine(health.cluster, patient))
    assert ["TG0568" in finding.message for finding in found if finding.state == "bad"] == [True, True]
