"""A home folder as runs leave it, built in a second without a model: pseudonyms, splits, examples, trainings, feedback.

The program's own code makes store, ledger, keys and tables; the trainings are files of three bytes.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flows.graph.keys import KeyParts
from flows.graph.store import Store
from flows.ledger.ledger import Ledger
from flows.ledger.open import open_ledger
from flows.ledger.rows import RunVerdict
from flows.registry.feedback import feedback_database
from flows.workspace.settings import Settings, load_settings
from schemas.artifacts import (
    Artifact,
    BundleRef,
    ChampionRef,
    DatasetRef,
    ModelRef,
    RowCounts,
    Splits,
    TicketTable,
    TrainedRef,
)
from schemas.curation_steps import RedactStep
from schemas.load import load_file
from schemas.pipeline import PipelineSpec
from schemas.training import PromptSpec
from tasks.curate.redaction.pseudonyms import Pseudonyms
from tasks.curate.rows import ticket_table, write_removed, write_tickets
from tasks.curate.split import write_assignments
from tasks.monitor.feedback import FeedbackRules, ingest_feedback
from tasks.storage.files import sha256_json
from tests.support.refs import trained_ref

KEY = "a key for pseudonyms of tests"
CUSTOMER, OTHER = "ann@vq.example", "bob@vq.example"
TEXT = "violet quokka"
PSEUDONYMS = Pseudonyms(KEY.encode())
CONFIG = """version: 1
pipelines:
  small:
    source: {kind: files, paths: [tickets.jsonl]}
    curate:
      steps: [{uses: redact, pseudonymise: [customer_id, ticket_id], key_env: VQ_KEY}]
    train: {base_model: "file:none", method: lora}
    gates: {rules: [{metric: format, value_threshold: 0.0}]}
    register: {name: small}
"""


def pseudonym(value: str) -> str:
    [found] = PSEUDONYMS.of_all([value])
    assert found is not None
    return found


TICKET = pseudonym("vq-1")
SOURCE = (("vq-1", CUSTOMER, TEXT), ("vq-2", CUSTOMER, TEXT), ("t-1", OTHER, "grey"), ("t-2", OTHER, "grey"))
WORDS = (CUSTOMER, pseudonym(CUSTOMER), TEXT, "vq-", TICKET)
"""Texts that must not remain anywhere."""


@dataclass
class Workspace:
    """A built workspace: its location and contents."""

    settings: Settings
    made: dict[str, Artifact]

    @property
    def ledger(self) -> Ledger:
        return open_ledger(self.settings)

    @property
    def specs(self) -> list[PipelineSpec]:
        return [load_file(self.root / "pipelines.yaml").get("small")]

    @property
    def root(self) -> Path:
        return self.settings.home.parent


def build(folder: Path) -> Workspace:
    """Two customers with two tickets each; v1 learned from both, v2 extends v1, v3 learned only from the other."""
    (folder / "pipelines.yaml").write_text(CONFIG)
    settings = load_settings(folder / "pipelines.yaml", environ={})
    workspace = Workspace(settings, {})
    raw, clean = rows(redacted=False), rows(redacted=True)
    workspace.ledger.start_run("run-1", pipeline="small", model_name="small", config_json="{}")
    _keep(workspace, "extract", (), TicketTable, lambda out: _table(raw, out))
    _keep(workspace, "redact", ("extract",), TicketTable, lambda out: _table(clean, out))
    _keep(workspace, "split", ("redact",), Splits, lambda out: _splits(clean, out))
    _keep(workspace, "encode", ("split",), DatasetRef, lambda out: _examples(clean, out))
    _keep(workspace, "prompts", ("split",), ModelRef, lambda out: _text(out, f"few shots: {TEXT}"))
    _keep(workspace, "elsewhere", (), DatasetRef, lambda out: _examples(clean[2:], out))
    for name, source in (("one", "encode"), ("two", "one"), ("three", "elsewhere"), ("trial", "encode")):
        _keep(workspace, "train", (source,), TrainedRef, lambda out, name=name: _trained(name, out), name=name)
    for number, name in enumerate(("one", "two", "three"), start=1):
        _record(workspace, number, name)
    workspace.ledger.promote("small", expected=None, version="1", verdict=RunVerdict("run-1", "better"))
    workspace.ledger.finish_run("run-1", status="DONE", exit_code=0)
    lines = [
        json.dumps({"ticket_id": ticket, "version": "1", "outcome": "edited", "at": "2026-06-01", "reply": reply})
        for ticket, reply in (("vq-1", f"No {TEXT}."), ("t-1", "As you like."))
    ]
    database = feedback_database(settings.home, "small")
    database.parent.mkdir(parents=True)
    step = RedactStep(uses="redact", pseudonymise=("customer_id", "ticket_id"), key_env="VQ_KEY")
    rules = FeedbackRules(frozenset("1"), [step])
    ingest_feedback([line.encode() for line in lines], rules, source="f", database=database)
    return workspace


def rows(*, redacted: bool) -> list[dict[str, Any]]:
    named = pseudonym if redacted else str
    return [
        {
            "ticket_id": named(ticket), "customer_id": named(customer), "body": f"{text} {ticket[-1]}", "reply": text,
            "source": "tickets.jsonl", "source_line": line,
        }
        for line, (ticket, customer, text) in enumerate(SOURCE, start=1)
    ]  # fmt: skip


def _keep(
    workspace: Workspace, step: str, sources: tuple[str, ...], kind: type[Artifact], make: Callable[..., Artifact], *,
    name: str = "",
) -> None:  # fmt: skip
    inputs = {source: workspace.made[source].digest for source in sources}
    parts = KeyParts(step=step, function="test", inputs=inputs, params={"name": name}, code={}, libraries={})
    obtained = Store(workspace.settings.home).obtain(step, sha256_json([step, name]), kind, make, parts=parts)
    workspace.made[name or step] = obtained.artifact
    workspace.ledger.record_step("run-1", name or step, obtained)


def _table(listed: list[dict[str, Any]], out: Path) -> TicketTable:
    write_removed([], out)
    n_rows = write_tickets(ticket_table(listed), out)
    return TicketTable(root=out, rows=RowCounts(n_in=n_rows, n_out=n_rows))


def _splits(listed: list[dict[str, Any]], out: Path) -> Splits:
    mine, theirs = listed[:2], listed[2:]
    write_tickets(ticket_table([mine[0], theirs[0]]), out, name="train.parquet")
    write_tickets(ticket_table([mine[1]]), out, name="validation.parquet")
    write_tickets(ticket_table([theirs[1]]), out, name="test.parquet")
    pointing = {
        "ticket_id": "t-3", "outcome": "merged", "code": "near", "reason": "alike", "source": "tickets.jsonl",
        "source_line": 9, "kept_id": mine[0]["ticket_id"], "cluster_id": mine[0]["ticket_id"], "shared_run": TEXT,
    }  # fmt: skip
    write_removed([pointing], out)
    columns = {
        "ticket_id": [row["ticket_id"] for row in listed],
        "group": [f"customer_id={row['customer_id']}" for row in listed],
        "split": ["train", "validation", "train", "test"],
        "since": pa.nulls(4, pa.timestamp("us")),
        "retired": [False] * 4,
    }
    write_assignments(pa.table(columns), out)
    return Splits(root=out, rows=RowCounts(n_in=5, n_out=4, n_merged=1), n_train=2, n_validation=1, n_test=1)


def _examples(listed: list[dict[str, Any]], out: Path) -> DatasetRef:
    train = [row["ticket_id"] for row in listed[:1] + listed[2:3]] if len(listed) > 2 else [listed[0]["ticket_id"]]
    ids = pa.table({"ticket_id": train})
    (out / "train").mkdir()
    with pa.OSFile(str(out / "train" / "data-0.arrow"), "wb") as sink, pa.ipc.new_stream(sink, ids.schema) as writer:
        writer.write_table(ids)
    return DatasetRef(
        root=out, n_train=len(train), n_validation=0, n_tokens=1, n_supervised=1, n_dropped=0, max_tokens=1
    )


def _text(out: Path, text: str) -> ModelRef:
    (out / "prompts.txt").write_text(text)
    return ModelRef(root=out, uri="none", n_parameters=1, vocab_size=2, context_length=3)


def _trained(name: str, out: Path) -> TrainedRef:
    (out / "adapter.bin").write_text(name)
    item, text = ("t-1", "grey") if name == "three" else (TICKET, TEXT)
    answers = pa.table({"step": [1], "item_id": [item], "text": [text]})
    pq.write_table(answers, out / "validation_answers.parquet")
    return trained_ref(out)


def _record(workspace: Workspace, number: int, name: str) -> None:
    trained = workspace.made[name]
    assert isinstance(trained, TrainedRef)

    def bundle(out: Path) -> BundleRef:
        (out / "adapter.bin").write_text(name)
        return BundleRef(root=out, n_bytes=1)

    home = workspace.settings.home
    kept = Store(home).obtain("bundle", sha256_json([name]), BundleRef, bundle).artifact
    model = ModelRef(root=home, digest="base", uri="file:base", n_parameters=1, vocab_size=2, context_length=3)
    candidate = ChampionRef(
        name="small", version="", run_id="run-1", prompt=PromptSpec(), max_new_tokens=4, verdict_digest="v",
        promoted_at="", bundle=kept, model=model, trained=trained,
    )  # fmt: skip
    assert workspace.ledger.record_candidate(candidate, verdict="PROMOTE", reason="because") == str(number)
