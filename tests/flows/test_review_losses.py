"""Train examples that the last candidate still gets wrong are listed for review, by their loss."""

import statistics

import pytest

from flows.graph.store import Store
from flows.ledger.ledger import Ledger
from flows.views.review import loss_source
from schemas.artifacts import DatasetRef
from schemas.load import load_file
from tasks.model.adapter import load_trained
from tasks.model.example_losses import example_losses
from tasks.train.batches import Examples
from tasks.train.forward import plain_losses
from tasks.train.validation import validation_loss
from tests.support.workplace import Workplace


def test_train_examples_are_listed_by_their_loss_on_request(empty_workplace: Workplace) -> None:
    early = empty_workplace.run("data", "review", "small", "--by-loss")
    assert early.returncode == 2
    assert "TG0159" in early.stderr
    run_id = empty_workplace.json("run", "small")["run_id"]
    plain = empty_workplace.json("data", "review", "small")
    assert "highest loss" not in plain["kinds"]

    done = empty_workplace.run("data", "review", "small", "--by-loss", "--limit", "7", "--write", "review.jsonl")
    assert done.returncode == 0, done.stderr
    assert "about a third of an epoch" in done.stderr
    listed = empty_workplace.json("data", "review", "small", "--by-loss", "--limit", "7")
    rows = [row for row in listed["rows"] if "nats per token" in row["reason"]]
    assert listed["kinds"]["highest loss"] == 7
    assert len(rows) == 7 - sum(n for name, n in plain["kinds"].items())

    ledger = Ledger(empty_workplace.home)
    spec = load_file(empty_workplace.folder / "pipelines.yaml").get("small")
    source = loss_source(spec, ledger, Store(empty_workplace.home))
    assert source.candidate.run_id == run_id
    nats = source.measure().nats
    highest = sorted(nats, key=lambda name: -nats[name])[: len(rows)]
    assert [row["ticket_id"] for row in rows] == highest
    assert {(row["field"], row["split"], row["rule"]) for row in rows} == {("reply", "train", "")}
    assert f"{nats[highest[0]]:.2f} nats per token" in rows[0]["reason"]
    assert f"is {statistics.median(nats.values()):.2f}" in rows[0]["reason"]

    # The same as the loss of a training, whatever is read at once.
    dataset: DatasetRef = source.dataset
    model, trained = source.candidate.model, source.candidate.trained
    loaded = load_trained(model, trained, dtype=spec.train.dtype)
    dtype = next(loaded.parameters()).dtype
    losses = plain_losses(loaded, dtype=dtype, recompute=False)
    examples = Examples(dataset.root / "train")
    assert set(nats) == {name for place in range(len(examples)) for name in examples.batch([place]).ticket_ids}
    for place in range(3):
        (name,) = examples.batch([place]).ticket_ids
        assert nats[name] == pytest.approx(float(losses(examples.batch([place])).detach().mean()), rel=1e-4)
    n_scored = {
        name: len(batch.targets)
        for batch in (examples.batch([place]) for place in range(len(examples)))
        for name in batch.ticket_ids
    }
    mean = sum(nats[name] * n for name, n in n_scored.items()) / sum(n_scored.values())
    assert mean == pytest.approx(validation_loss(loaded, losses, examples, batch_size=4), rel=1e-4)
    alone = example_losses(dataset, model=model, trained=trained, dtype=spec.train.dtype, batch_tokens=1)
    assert alone == pytest.approx(dict(nats), rel=1e-4)
