"""Places where tests kill a process on purpose, to prove that a rerun ends in one complete result.

`TUNEGATE_FAILPOINT=store.sealed` kills the process with SIGKILL when it first reaches that place,
`TUNEGATE_FAILPOINT=store.sealed:3` when it reaches it for the third time. Without the variable a place costs one
look-up.
"""

import os
import signal

from schemas.errors import ConfigError

VARIABLE = "TUNEGATE_FAILPOINT"

PLACES: dict[str, str] = {
    "ingest.fetched": "a page of a source is read, nothing of it is written",
    "ingest.written": "a page and the place after it are written, not committed",
    "ingest.committed": "a page and the place after it are committed, the next page is not requested",
    "ingest.finished": "everything is ingested and marked complete; replaced texts are still in the file",
    "ingest.rewritten": "the file without replaced texts is complete aside, the old one is still in place",
    "copies.part": "a part of a remote file is written aside, the file is incomplete",
    "copies.fetched": "a remote file is complete aside and fsynced, not yet in place",
    "copies.renamed": "a remote file is in place, no line describes it",
    "copies.noted": "a remote file is in place and recorded, the next one is not requested",
    "copies.recorded": "all remote files are here and recorded, outdated copies are still there",
    "store.started": "the directory aside exists, the task has not run",
    "store.produced": "the task has written its files, there is no manifest",
    "store.sealed": "the directory is complete and hashed, not yet in place",
    "store.renamed": "the directory is in place, its parents are not fsynced and the scratch folder is still there",
    "store.committed": "everything is in place, the temporary folder is still there",
    "ledger.run": "a run's first row is written",
    "ledger.tick": "a tick's decision is written, nothing has been done about it",
    "ledger.mark": "verdict and mark of a run are written, not committed",
    "ledger.candidate": "a candidate has its version",
    "ledger.promote.opened": "the transaction of a promotion, approval or rollback is open, nothing is written",
    "ledger.promote.written": "champion, event and projection are written, not committed",
    "ledger.promote.committed": "the move is committed, no one is notified",
    "mlflow.run": "MLflow has the complete run, not the version",
    "mlflow.model": "MLflow has a model without files, not the version",
    "mlflow.artifacts": "MLflow has the bundle's files, not the version",
    "mlflow.attached": "MLflow has the files of the verdict, its version does not have the tags",
    "mlflow.scored": "MLflow's version has the tags of the verdict, its model does not have all scores",
    "mlflow.version": "MLflow has the version, the ledger does not know its number",
    "mlflow.previous": "MLflow's alias `previous` follows the ledger, `champion` does not yet",
    "mlflow.champion": "MLflow's aliases `previous` and `champion` follow the ledger, `challenger` does not yet",
    "mlflow.challenger": "all aliases follow the ledger, the tags of models do not yet",
    "mlflow.marked": "a model has lost the tag of an alias, no other one has it yet",
    "mlflow.synced": "MLflow is up to date, the outbox still has the entry",
    "forget.buried": "a customer has a tombstone, none of their data is removed",
    "forget.noted": "the ledger lists what of a customer will be removed, nothing is removed",
    "forget.removed": "one place with a customer's rows is removed or rewritten, others are still there",
    "forget.certified": "everything is removed and the certificate is written, the ledger does not say so yet",
    "snapshot.copied": "the warehouse is copied aside, readers still see the previous one",
    "answers.kept": "a batch of answers is kept, nothing has looked at it",
    "train.checkpoint.written": "a checkpoint's files are written aside, it is not complete",
    "train.best.kept": "the weights of a better validation are saved, no checkpoint refers to them yet",
    "train.trunk.written": "the output of the frozen layers is written aside, it is not complete",
    "train.checkpoint.renamed": "a checkpoint is complete, older ones are still there",
    "train.depot.put": "a checkpoint is on the cluster's shared storage, no note says that it is complete",
    "train.rank.reduced": "a process other than the first has added its gradients to the others', no step is done",
}
"""Every place, and what is true there."""

_reached: dict[str, int] = {}


def reach(place: str) -> None:
    """Kill this process (SIGKILL) when the environment names this place; otherwise do nothing.

    Raises:
        ConfigError: the environment names an unknown place: the test that set it would prove nothing.
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
