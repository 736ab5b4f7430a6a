"""`cost`, `compare`, `advise`, `ablate` and the report's costs, on two recorded runs of a toy world with bad tickets.

Three of eight tickets before the cut have the wrong category and the subject "junk", so a rule can drop them. The runs
use the real steps; only the training process is a fork of this one, which has torch loaded.
"""

import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from benchmarks import toy
from flows.cli import main
from flows.graph.graph import Node
from flows.ledger.ledger import Ledger
from flows.run.ablation import Ablation, arms_of
from flows.workspace.settings import load_settings
from schemas.load import load_file
from tests.flows.cli.test_ablate import World, world, write_world


def ablate_until_killed(config: Path) -> None:
    """Run `tunegate study ablate` until the raw arm has been encoded."""

    def on_node(arm: str, node: Node, _seconds: float, _reused: bool) -> None:
        if (arm, node.name) == ("raw", "encode"):
            os.kill(os.getpid(), signal.SIGKILL)

    spec = load_file(config).get("desk")
    Ablation(spec, load_settings(config), config.parent, on_node).run(arms_of(spec), "exact")


def test_an_ablation_resumes_after_a_kill_shows_the_lever_and_does_not_change_the_ledger(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = Ledger(world.settings.home)
    before = (ledger.runs(), ledger.champions(), ledger.candidates("desk"), ledger.looks())
    process = multiprocessing.get_context("fork").Process(target=ablate_until_killed, args=(world.config,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    arguments = ("study", "ablate", "desk", "--only", "raw", "--only", "without-has_body")
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--json", "--config", str(world.config)])
    on_node = capsys.readouterr()
    assert ended.value.code == 0
    made = [tuple(line.split()[:2]) for line in on_node.err.splitlines() if line.endswith(" s")]
    assert ("raw", "train") in made
    assert ("raw", "encode") not in made  # kept from the killed process
    assert not [step for arm, step in made if arm == "curated"]  # the run has trained it
    table = json.loads(on_node.out)
    rows = {row["arm"]: row for row in table["rows"]}
    assert {row["n_steps"] for row in rows.values()} == {100}
    assert (rows["curated"]["n_examples"], rows["raw"]["n_examples"]) == (220, 352)
    raw = rows["raw"]
    assert (raw["gain"], table["n_items"]) == ("helps", 160)
    assert raw["lower"] > 0
    assert raw["won"] - raw["lost"] == round(160 * raw["difference"])
    assert rows["without-has_body"]["gain"] == "no item differs"
    assert table["confidence"] == pytest.approx(0.975)  # two comparisons share the error probability
    assert table["answer"].startswith("Yes: at equal steps the curated tickets beat the raw ones")
    assert before == (ledger.runs(), ledger.champions(), ledger.candidates("desk"), ledger.looks())
    with pytest.raises(SystemExit):
        main([*arguments, "--config", str(world.config)])
    again = capsys.readouterr()
    assert table["file"] in again.out  # running it again gives the same file
    assert toy.tickets(1)[0]["body"] not in again.out + again.err
    made = [tuple(line.split()[:2]) for line in again.err.splitlines() if line.endswith(" s")]
    assert made == [("without-has_body", "rules")]  # its texts before redaction are not kept
    advice = world.json(capsys, "study", "advise", "desk")
    assert {reason["rule"]: reason["says"] for reason in advice["reasons"]}["quality"] == "curate"
