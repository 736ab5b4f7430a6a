"""Find a candidate by a user's name for it: a run, or a version or alias of a pipeline's registered model.

`20260601-0523` is a run (or the start of its id); `support-replies@champion`, `@previous` and `@3` are a pipeline's.
Only candidates with a verdict are found: a run without one, or with ERROR, has nothing to export or serve.
"""

from dataclasses import dataclass

from flows.ledger.history import entries_of
from flows.ledger.ledger import Ledger
from flows.ledger.rows import CandidateRow, RunRow
from schemas.errors import ConfigError
from schemas.export import PromotionStatus
from schemas.load import PipelineFile

VERIFIED = ("PROMOTE", "UNCOMPARED", "HOLD", "BLOCK")


@dataclass(frozen=True)
class ResolvedCandidate:
    """A candidate, the run that made it, and whether it is or was champion."""

    row: CandidateRow
    run: RunRow
    standing: PromotionStatus
    let_in_by: str
    """`promote`, `approve` or `force`; empty if it never was champion."""


def aliases_of(ledger: Ledger, name: str) -> dict[str, str]:
    """Return alias -> version of the registered model at this moment; MLflow gets the same."""
    champion, waiting = ledger.champion(name), ledger.waiting(name)
    found = {
        "champion": champion.version if champion else None,
        "previous": ledger.previous(name),
        "challenger": waiting[-1].to_version if waiting else None,
    }
    return {alias: version for alias, version in found.items() if version is not None}


def resolve_candidate(text: str, ledger: Ledger, loaded: PipelineFile) -> ResolvedCandidate:
    """Return the candidate with this name.

    Raises:
        ConfigError: TG0151, no such run or several; TG0159, there is no candidate of that name, or it has no
            verdict; see also `PipelineFile.get`.
    """
    pipeline, at, which = text.rpartition("@")
    if at:
        return _of_version(loaded.get(pipeline).registry.name, which, ledger, text)
    return _of_run(ledger.run(text), ledger)


def _of_version(name: str, which: str, ledger: Ledger, text: str) -> ResolvedCandidate:
    aliases = aliases_of(ledger, name)
    version = aliases.get(which, which)
    row = ledger.candidate(name, version) if version.isdecimal() else None
    if row is None:
        versions = [candidate.ref.version for candidate in ledger.candidates(name)]
        known = ", ".join([*aliases, *versions]) or "none yet"
        raise ConfigError(
            f"{name} has no {which!r}; choose from: {known}",
            code="TG0159",
            where=text,
            hint="`tunegate model history PIPELINE` shows the versions",
        )
    return _verified(row, ledger.run(row.ref.run_id), ledger)


def _of_run(run: RunRow, ledger: Ledger) -> ResolvedCandidate:
    if run.status != "DONE" or run.verdict not in VERIFIED:
        state = run.verdict or run.status
        raise ConfigError(
            f"run {run.run_id} is {state}; only a run that ended with {', '.join(VERIFIED[:-1])} or {VERIFIED[-1]} has "
            "a candidate to export or serve",
            code="TG0159",
            where=run.run_id,
            hint="for a skipped run, use the candidate of the run before: PIPELINE@champion or PIPELINE@VERSION",
        )
    digests = {step.step: step.digest for step in ledger.steps(run.run_id)}
    rows = ledger.candidates(run.model_name)
    own = [row for row in rows if row.ref.run_id == run.run_id]
    same = [row for row in rows if row.ref.trained.digest == digests.get("train")]  # made by another run before
    if not own and not same:
        raise ConfigError(
            f"run {run.run_id} recorded no candidate",
            code="TG0159",
            where=run.run_id,
            hint="a run with --as-of records none" if run.as_of else "`tunegate show RUN` shows how far it got",
        )
    return _verified((own or same)[0], run, ledger)


def _verified(row: CandidateRow, run: RunRow, ledger: Ledger) -> ResolvedCandidate:
    name, version = row.ref.name, row.ref.version
    if row.verdict not in VERIFIED:
        raise ConfigError(
            f"{name} v{version} has the verdict {row.verdict}, so it was not judged; allowed: {', '.join(VERIFIED)}",
            code="TG0159",
            where=run.run_id,
            hint="`tunegate gate explain RUN` shows what was wrong",
        )
    entry = entries_of(ledger.history(name), name).get(version)
    champion = ledger.champion(name)
    if champion is not None and champion.version == version:
        standing: PromotionStatus = "champion"
    else:
        standing = "former champion" if entry is not None else "never promoted"
    return ResolvedCandidate(row, run, standing, entry.action if entry is not None else "")
