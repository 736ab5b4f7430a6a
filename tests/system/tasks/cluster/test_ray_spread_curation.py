"""Curation on a real cluster of two nodes: the digests of one process, a node killed in the middle included."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows import health
from flows.cluster import check_cluster, place_of, spread_of
from flows.commands.doctor import examine
from flows.curate import curate_steps
from flows.engine.plan import parts_of, run_step
from flows.engine.step import Step
from flows.engine.store import Store
from flows.health import Patient
from flows.settings import load_settings
from schemas.artifacts import Artifact
from schemas.pipeline import PipelineSpec
from tasks.cluster.nodes import LIBRARIES
from tasks.cluster.ray_spread import RaySpread
from tasks.curate.extract import fingerprint_source
from tests.schemas.test_pipeline import build
from tests.support.ray_cluster import TwoNodes

pytestmark = pytest.mark.filterwarnings("ignore")  # of Ray about its own future
SPREAD = ("redact", "dedup")


def pipeline(engine: str = "ray") -> PipelineSpec:
    return build(
        engine=engine,
        source={"kind": "generated", "n_tickets": 3000, "n_customers": 300, "seed": 5},
        schema={"fail_above": 0.2},
        curate={"steps": [{"uses": "redact"}, {"uses": "dedup", "threshold": 0.6}]},
    )


def told(spec: PipelineSpec) -> str:
    return fingerprint_source(spec.source, root=Path())


def curated(spread: RaySpread | None, home: Path) -> tuple[dict[str, Artifact], dict[str, str]]:
    """Results and keys of all steps, in a store of their own."""
    done: dict[str, Artifact] = {}
    keys: dict[str, str] = {}
    spec = pipeline("local" if spread is None else "ray")
    for step in curate_steps(spec, fingerprint=told(spec), root=home, cache=home, spread=spread):
        keys[step.name] = parts_of(step, done).key
        done[step.name] = run_step(step, done, Store(home)).artifact
    return done, keys


def digests(done: dict[str, Artifact]) -> dict[str, str]:
    """Of all steps but one: DuckDB's file has other bytes each time that it is written."""
    return {name: result.digest for name, result in done.items() if name != "warehouse"}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Artifact], dict[str, str]]:
    return curated(None, tmp_path_factory.mktemp("local"))


class Killing(RaySpread):
    """Lets a node lose its power behind the first thing that workers hold, and behind the first result."""

    def __init__(self, cluster: TwoNodes) -> None:
        super().__init__(cluster.place)
        self._cluster = cluster
        self.n_killed = 0

    @property
    def n_parts(self) -> int:
        return 4

    def each(self, work: Callable[..., Any], parts: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        for result in super().each(work, parts):
            if work.__name__ == "redact_piece":
                self._kill()
            yield result

    def hold(
        self, work: Callable[..., tuple[Any, ...]], parts: Iterable[tuple[Any, ...]], *, n_outputs: int
    ) -> list[tuple[Any, ...]]:
        held = super().hold(work, parts, n_outputs=n_outputs)
        if work.__name__ in ("shingle_piece", "mark_bucket"):
            self._kill()
        return held

    def _kill(self) -> None:
        if self.n_killed < 3:
            self._cluster.renew_second()
            self._cluster.kill(self._cluster.second)
            self.n_killed += 1


def test_the_cluster_gives_the_digests_of_one_process(both: TwoNodes, local: Any, tmp_path: Path) -> None:
    before = set(both.shared.rglob("*"))  # base models of other tests stay
    done, keys = curated(RaySpread(both.place), tmp_path)
    assert digests(done) == digests(local[0])
    assert keys == local[1]
    assert done["dedup"].rows.n_merged > 100
    assert set(both.shared.rglob("*")) == before  # no tickets are left on the shared storage


def test_a_node_that_is_killed_again_and_again_changes_no_digest(both: TwoNodes, local: Any, tmp_path: Path) -> None:
    spread = Killing(both)
    done, _ = curated(spread, tmp_path)
    assert spread.n_killed == 3
    assert {name: done[name].digest for name in SPREAD} == {name: local[0][name].digest for name in SPREAD}


def test_a_result_of_either_engine_is_reused_by_the_other(local: Any) -> None:
    done, _ = local
    spec = pipeline()
    place = place_of(
        spec, replace(load_settings(Path()), ray_address="10.0.0.5:6379", shared_storage="file:///nowhere")
    )
    store = Store(done["dedup"].root.parents[2])
    for step in curate_steps(spec, fingerprint=told(spec), root=Path(), cache=Path(), spread=spread_of(place)):
        assert run_step(step, done, store).reused, step.name  # nobody was connected to


def test_every_library_of_a_spread_step_is_compared_between_nodes(both: TwoNodes) -> None:
    spec = build(engine="ray", curate={"steps": [{"uses": "redact", "names": {"mode": "sample"}}, {"uses": "dedup"}]})
    steps: list[Step] = curate_steps(spec, fingerprint="f", root=Path(), cache=Path(), spread=RaySpread(both.place))
    spread = [step for step in steps if step.context.get("spread") is not None]
    assert [step.name for step in spread] == ["redact", "dedup"]
    assert {name for step in spread for name in step.libraries} <= set(LIBRARIES)


def test_plan_and_doctor_look_at_address_storage_and_nodes(
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
    assert ["TG0568" in finding.told for finding in found if finding.state == "bad"] == [True, True]


DECLARED = """\
version: 1
pipelines:
  small:
    engine: ray
    source: {kind: generated}
    train: {base_model: "file:models/x"}
    gates: {rules: [{metric: exact, value_threshold: 0.5}]}
    register: {name: small}
"""
