"""A home folder with real candidates of a tiny model, as runs leave it, built in a second without training or judging.

The program's own code makes store, ledger, bundles and prompts; only the weights are perturbed instead of trained, and
the verdicts are fixed.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import orjson

from flows.graph.store import Obtained, Store
from flows.ledger.ledger import Ledger
from flows.ledger.rows import RunVerdict
from schemas.artifacts import (
    Artifact,
    BundleRef,
    CertifiedRef,
    ChampionRef,
    DatasetRef,
    EvalSet,
    GateDecision,
    LabelSet,
    ModelRef,
    PromptSet,
    RowCounts,
    ServedCertificate,
    Splits,
    TrainedRef,
)  # fmt: skip
from schemas.load import load_file
from schemas.tables import TICKET_COLUMNS
from schemas.training import Method, TrainSpec
from schemas.verdicts import Verdict
from tasks.assess.prompts import build_prompts
from tasks.model.chat_format import encode_examples
from tasks.release.bundle import bundle_candidate
from tasks.storage.files import sha256_json

A = TypeVar("A", bound=Artifact)
TICKETS = [
    ("T-1", "Parcel", "Hello, my parcel NB-10234 has not arrived.", "We are sorry to hear that."),
    ("T-2", "Charge", "Please refund the second charge of [EMAIL_1].", "Thank you for telling us."),
    ("T-3", "Lamp", "The lamp does not turn on; what shall I do next?", "Our courier will deliver it by Friday."),
]


@dataclass
class Candidates:
    """Adds candidates of one pipeline."""

    folder: Path
    model: ModelRef
    pipeline: str = "small"

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.folder / ".tunegate")

    @property
    def config(self) -> Path:
        return self.folder / "pipelines.yaml"

    def add(
        self,
        seed: int,
        verdict: Verdict = "PROMOTE",
        *,
        method: Method = "lora",
        certified: tuple[CertifiedRef, LabelSet] | None = None,
        **changes: Any,
    ) -> str:
        """Add a run, `run-SEED`, with a candidate; PROMOTE makes it champion. Returns the version."""
        spec = load_file(self.config).get(self.pipeline)
        run_id, ledger = f"run-{seed}", self.ledger
        ledger.start_run(
            run_id, pipeline=self.pipeline, model_name=spec.registry.name,
            config_json=json.dumps({**orjson.loads(spec.model_dump_json(by_alias=True)), **changes.pop("spec", {})}),
        )  # fmt: skip
        ledger.set_digests(run_id, inputs=f"inputs-{seed}", code="")
        base = self._keep("base_model", "base_model", run_id, ModelRef, lambda out: _base(self.model, out))
        splits = self._keep("decontaminate", "decontaminate", run_id, Splits, _splits)
        encoding = spec.train.encoding()
        self._keep(
            "encode", "encode", run_id, DatasetRef,
            lambda out: encode_examples(splits=splits, model=base, encoding=encoding, out=out),
        )  # fmt: skip
        trained = self._keep(
            "train", "train", run_id, TrainedRef, lambda out: _trained(base, seed, method, out), key=f"{seed}{method}"
        )
        items = self._keep("items", "items", run_id, EvalSet, _items)
        self._keep(
            "prompts_tuned", "prompts", run_id, PromptSet,
            lambda out: build_prompts(
                items=items, arm="tuned", prompt=spec.train.prompt, format=spec.train.format, out=out
            ),
        )  # fmt: skip
        decision = self._keep(
            "gate", "gate", run_id, GateDecision, lambda out: _decision(verdict, out), key=f"{verdict}{seed}"
        )
        bundle = self._keep(
            "bundle", "bundle", run_id, BundleRef,
            lambda out: bundle_candidate(
                trained=trained, model=base, name=spec.registry.name, prompt=spec.train.prompt,
                decoding=spec.evaluate.decoding(), out=out, certificate=None if certified is None else certified[0],
                labels=None if certified is None else certified[1],
            ),
            key=f"{seed}{method}",
        )  # fmt: skip
        version = ledger.record_candidate(
            ChampionRef(
                name=spec.registry.name, version="", run_id=run_id, model=base, trained=trained,
                prompt=spec.train.prompt, max_new_tokens=spec.evaluate.max_new_tokens, bundle=bundle,
                verdict_digest=decision.digest, promoted_at="",
                certificate=None if certified is None else ServedCertificate.of(*certified),
            ),
            verdict=verdict, reason="because",
        )  # fmt: skip
        if verdict == "PROMOTE":
            now = ledger.champion(spec.registry.name)
            ledger.promote(
                spec.registry.name, expected=now.version if now else None, version=version,
                verdict=RunVerdict(run_id, "because", decision.digest),
            )  # fmt: skip
        ledger.finish_run(run_id, status="DONE", verdict=verdict, reason="because", exit_code=0)
        return version

    def _keep(
        self, step: str, folder: str, run_id: str, kind: type[A], make: Callable[[Path], A], *, key: str = ""
    ) -> A:
        obtained: Obtained[A] = Store(self.folder / ".tunegate").obtain(folder, sha256_json([step, key]), kind, make)
        self.ledger.record_step(run_id, step, obtained)  # type: ignore[arg-type]
        return obtained.artifact


def _base(model: ModelRef, out: Path) -> ModelRef:
    for path in model.root.iterdir():
        if path.name != "MANIFEST.json":
            (out / path.name).write_bytes(path.read_bytes())
    return model.model_copy(update={"root": out, "digest": ""})


def _trained(base: ModelRef, seed: int, method: Method, out: Path) -> TrainedRef:
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch

    from tasks.model.adapter import open_for_training, save_trained, trainable_tensors

    spec = TrainSpec.model_validate({
        "base_model": base.uri, "method": method, "learning_rate": 1e-4, "dtype": "float32", "adapter": {"rank": 4},
    })  # fmt: skip
    model = open_for_training(base, spec)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in trainable_tensors(model).values():
            tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.05)
    save_trained(model, spec, base=base, out=out)
    curve = {"step": [1, 2], "loss": [1.5, 1.0], "learning_rate": [1e-4, 1e-4], "grad_norm": [1.0, 0.5]}
    pq.write_table(pa.table(curve), out / "curves.parquet")
    (out / "training.json").write_text(json.dumps({"quantization": spec.quantization.model_dump(mode="json")}))
    return TrainedRef(
        root=out, method=method, format="instruction", base_digest=base.digest, n_trainable=1, n_steps=1, n_tokens=1,
        train_loss=1.0,
    )  # fmt: skip


def _splits(out: Path) -> Splits:
    _write(TICKETS, out / "train.parquet")
    _write(TICKETS[:1], out / "validation.parquet")
    _write(TICKETS[1:], out / "test.parquet")
    return Splits(root=out, rows=RowCounts(n_in=6, n_out=6), n_train=3, n_validation=1, n_test=2)


def _items(out: Path) -> EvalSet:
    _write(TICKETS, out / "items.parquet", answer=True)
    return EvalSet(root=out, n_items=3, n_available=3)


def _write(rows: list[tuple[str, str, str, str]], path: Path, *, answer: bool = False) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {name: pa.nulls(len(rows), pa.string()) for name in TICKET_COLUMNS}
    for place, name in enumerate(("ticket_id", "subject", "body", "reply")):
        columns[name] = pa.array([row[place] for row in rows], pa.string())
    if answer:
        columns |= {"item_id": columns["ticket_id"], "answer": columns["reply"]}
    pq.write_table(pa.table(columns), path)


def _decision(verdict: Verdict, out: Path) -> GateDecision:
    (out / "decision.md").write_text(f"# {verdict}\n")
    return GateDecision(root=out, verdict=verdict, reason="because", findings=(), n_items=3, champion_version=None)
