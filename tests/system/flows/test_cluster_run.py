"""`engine: ray` in a pipeline: which steps run on the cluster, and a whole run there with the same results."""

import os

import pytest

from tests.support.ray_cluster import two_nodes
from tests.support.workplace import ForkedWorkplace


@pytest.mark.campaign
@pytest.mark.server
def test_a_run_on_the_cluster_has_the_results_of_a_local_run(
    empty_workplace: ForkedWorkplace, tmp_path_factory: pytest.TempPathFactory
) -> None:
    def digests() -> dict[str, str]:
        run_id = empty_workplace.json("run", "small")["run_id"]
        found = {row["step"]: row["digest"] for row in empty_workplace.json("show", run_id)["steps"]}
        assert found.pop("warehouse"), "rows are equal, but bytes may differ"
        return found

    local = digests()
    assert {"redact", "dedup", "train", "answers_tuned", "gate"} <= local.keys()
    with two_nodes(tmp_path_factory.mktemp("ray")) as cluster:
        empty_workplace.declare(lambda document: document["pipelines"]["small"].update(engine="ray"))
        empty_workplace.environ |= {
            "RAY_ADDRESS": cluster.place.address, "TUNEGATE_SHARED": cluster.place.shared,
            "RAY_AUTH_MODE": os.environ["RAY_AUTH_MODE"], "RAY_AUTH_TOKEN": os.environ["RAY_AUTH_TOKEN"],
            "TUNEGATE_HOME": str(empty_workplace.folder / "other-home"),
        }  # fmt: skip
        on_cluster = digests()
        assert not any(path.suffix == ".safetensors" for path in (cluster.shared / "trainings").rglob("*"))
    assert on_cluster == local
