"""A run's bill of materials: written when it comes to its verdict, from what it used. Called by `flows/release.py`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import orjson

from flows.chosen import chosen_names
from flows.engine.clock import present
from flows.engine.disk import private_folder
from flows.report import report_folder
from schemas.artifacts import BundleRef, DatasetRef, ModelRef, Splits, TrainedRef
from schemas.secrets import masked_value
from tasks.files import write_atomic
from tasks.release.bill import Part, bill_of_materials, installed, read_lock, with_licences

if TYPE_CHECKING:
    from flows.session import Session

T = TypeVar("T")
PROJECT = Path(__file__).resolve().parents[1]
LOCK = PROJECT / "requirements.lock"
NAME = "sbom.cdx.json"


def leave_bill(session: Session) -> None:
    """Write it beside the run's report; whatever goes wrong is told and changes nothing."""
    try:
        folder = private_folder(report_folder(session.settings.home, session.run_id))
        write_atomic(folder / NAME, orjson.dumps(masked_value(bill_of_run(session))) + b"\n")
    except Exception as error:
        session.listeners.noted(f"the bill of materials was not written ({type(error).__name__})")


def bill_of_run(session: Session) -> dict[str, object]:
    """The model that the run trained: base model, tickets, code, and every distribution that is installed."""
    names = chosen_names(session.spec.train)
    model, trained = _done(session, names.model, ModelRef), _done(session, "train", TrainedRef)
    splits, dataset = _done(session, "decontaminate", Splits), _done(session, names.dataset, DatasetRef)
    bundle = _done(session, "bundle", BundleRef)
    about = {"run": session.run_id, "pipeline": session.spec.name, "method": trained.method, "steps": trained.n_steps}
    subject = Part(
        "machine-learning-model", session.spec.registry.name, session.run_id, bundle.digest, about=_texts(about)
    )
    return bill_of_materials(
        subject,
        parts=[
            Part(
                "machine-learning-model", model.uri.split("#")[0].rsplit("/", 1)[-1], model.digest[:16], model.digest,
                about=_texts({"uri": model.uri, "parameters": model.n_parameters}),
            ),
            Part(
                "data", f"{session.spec.name}-tickets", splits.digest[:16], splits.digest,
                about=_texts({"train": splits.n_train, "validation": splits.n_validation, "test": splits.n_test}),
            ),
            Part(
                "data", f"{session.spec.name}-examples", dataset.digest[:16], dataset.digest,
                about=_texts({"train": dataset.n_train, "tokens": dataset.n_tokens}),
            ),
            application(session.ledger.run(session.run_id).code),
        ],
        distributions=installed(read_lock(LOCK)),
        time=present().isoformat(timespec="seconds"),
    )  # fmt: skip


def bill_of_release() -> dict[str, object]:
    """tunegate itself: every distribution of the lock with the hashes of its files, and the licences of those that are
    installed. Holds no time: equal checkouts give equal bytes."""
    return bill_of_materials(application(), parts=[], distributions=with_licences(read_lock(LOCK)))


def application(code: str = "") -> Part:
    """tunegate as a component; `code` is the digest of the code that ran."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        number = version("tunegate")
    except PackageNotFoundError:
        number = "0"
    return Part("application", "tunegate", number, code)


def _done(session: Session, name: str, kind: type[T]) -> T:
    artifact = session.done[name]
    if not isinstance(artifact, kind):
        raise TypeError(f"step {name} made {type(artifact).__name__}, not {kind.__name__}")
    return artifact


def _texts(values: dict[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in values.items()}
