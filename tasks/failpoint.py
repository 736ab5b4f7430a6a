"""Places where a process can be killed on purpose, to prove that a rerun ends in one complete result.

`TUNEGATE_FAILPOINT=store.sealed` kills the process with SIGKILL when it first reaches that place,
`TUNEGATE_FAILPOINT=store.sealed:3` when it reaches it for the third time. Without the variable a place costs one
look-up. It knows nothing of what happens at a place; used by tasks and by flows/graph, set by tests.
"""

from __future__ import annotations

import os
import signal

from schemas.errors import ConfigError

VARIABLE = "TUNEGATE_FAILPOINT"

PLACES: dict[str, str] = {
    "ingest.fetched": "a page of a source is read, nothing of it is written",
    "ingest.written": "a page and the place after it are written, not committed",
    "ingest.committed": "a page and the place after it are committed, the next one is not asked for",
    "ingest.finished": "everything is brought in and said to be complete; replaced texts are still in the file",
    "ingest.rewritten": "the file without replaced texts is complete aside, the old one is still in its place",
    "copies.part": "a piece of a remote file is written aside, the file is not whole",
    "copies.fetched": "a remote file is whole aside and fsynced, not yet in its place",
    "copies.renamed": "a remote file is in its place, no line says what it is",
    "copies.noted": "a remote file is in its place and noted, the next one is not asked for",
    "copies.told": "all remote files are here and said to be, copies that are no longer wanted are still there",
    "store.started": "the directory aside exists, the task has not run",
    "store.produced": "the task has written its files, there is no manifest",
    "store.sealed": "the directory is complete and hashed, not yet in its place",
    "store.renamed": "the directory is in its place, its parents are not fsynced and the scratch folder is still there",
    "store.committed": "everything is in its place, the temporary folder is still there",
    "ledger.run": "a run's first row is written",
    "ledger.tick": "a tick's decision is written, nothing has been done about it",
    "ledger.mark": "verdict and mark of a run are written, not committed",
    "ledger.candidate": "a candidate has its version",
    "ledger.promote.opened": "the transaction of a promotion, approval or rollback is open, nothing is written",
    "ledger.promote.written": "champion, event and projection are written, not committed",
    "ledger.promote.committed": "the move is committed, nobody has been told",
    "mlflow.run": "MLflow has the complete run, not the version",
    "mlflow.artifacts": "MLflow has the bundle's files, not the version",
    "mlflow.version": "MLflow has the version, the ledger does not know its number",
    "mlflow.previous": "MLflow's alias `previous` follows the ledger, `champion` does not yet",
    "mlflow.champion": "MLflow's aliases `previous` and `champion` follow the ledger, `challenger` does not yet",
    "mlflow.challenger": "all aliases follow the ledger, the outbox is not worked off",
    "mlflow.told": "MLflow knows, the outbox still says that it does not",
    "forget.buried": "a customer has a tombstone, nothing of theirs is removed",
    "forget.noted": "the ledger says what of a customer will go, nothing is gone",
    "forget.removed": "one thing that held a customer's rows is gone or written anew, others are still there",
    "forget.certified": "everything is gone and the certificate is written, the ledger does not say that it has ended",
    "snapshot.copied": "the warehouse is copied aside, readers still find the one before",
    "train.checkpoint.written": "a checkpoint's files are written aside, it is not complete",
    "train.best.kept": "the weights of a better validation are kept, no checkpoint speaks of them yet",
    "train.trunk.written": "the output of the frozen layers is written aside, it is not complete",
    "train.checkpoint.renamed": "a checkpoint is complete, older ones are still there",
    "train.depot.put": "a checkpoint lies on the storage that a cluster shares, no note says that it is complete",
    "train.rank.reduced": "a process that is not the first has added its gradients to the others', no step is done",
}
"""Every place and what is true there."""

_reached: dict[str, int] = {}


def reach(place: str) -> None:
    """Kill this process (SIGKILL) when the environment names this place; otherwise do nothing.

    Raises:
        ConfigError: the environment names a place that does not exist: the test that set it would pass for nothing.
        KeyError: the caller's own place is not listed in `PLACES`.
    """
    wanted = os.environ.get(VARIABLE)
    if not wanted:
        return
    name, _, count = wanted.partition(":")
    if name not in PLACES:
        raise ConfigError(
            f"unknown place {name!r}; places are {', '.join(PLACES)}", code="TG0103", where=VARIABLE, hint="unset it"
        )
    PLACES[place]
    if name != place:
        return
    _reached[place] = _reached.get(place, 0) + 1
    if _reached[place] == int(count or 1):
        os.kill(os.getpid(), signal.SIGKILL)
