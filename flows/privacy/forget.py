"""Forget a customer, and forget them again after a backup was put back.

Nothing else may work on the workspace meanwhile: all pipelines are locked. Called by `tunegate forget`, and at the
beginning of every run for those who were forgotten before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from flows.engine.runs import now
from flows.privacy.keys import all_tombstones, keep_tombstone, load_forgotten, load_hashes
from flows.privacy.remove import remove_customer
from flows.privacy.trace import Tracer, feedback_databases, with_tickets
from flows.privacy.who import hashes_of, names_of
from flows.settings import Settings, open_ledger
from schemas.errors import SecurityError
from schemas.forget import Certificate, Holdings, Tombstone
from schemas.pipeline import PipelineSpec
from tasks.failpoint import reach
from tasks.forget.hashes import Forgotten

LOCK_NAME = "forget"


def plan_forgetting(settings: Settings, specs: Iterable[PipelineSpec], customer: str) -> Holdings:
    """What is held of the customer and what would become of it; changes nothing but the index."""
    owner, asked = hashes_of(customer, specs, load_hashes(settings))
    tracer = Tracer(settings, asked)
    return tracer.holdings(owner, with_tickets(tracer, asked) if feedback_databases(settings.home) else asked)


def forget(
    settings: Settings, specs: Iterable[PipelineSpec], customer: str, *, reason: str, actor: str, unknown: bool
) -> Certificate:
    """Remove the customer and keep them out.

    Args:
        unknown: Also keep out a customer of whom nothing is held.

    Raises:
        SecurityError: TG0833 there is no reason, or it names the customer; TG0834 nothing is held of them.
        LockedError: a pipeline is running.
    """
    specs = tuple(specs)
    _check_reason(reason, names_of(customer, specs))
    with workspace_lock(settings, specs):
        hashes = load_hashes(settings)
        load_forgotten(settings)  # refuses when earlier tombstones are under another key
        owner, forgotten = hashes_of(customer, specs, hashes)
        known = next((each for each in all_tombstones(settings) if each.id == owner), None)
        tracer = Tracer(settings, forgotten)
        found = tracer.found(sorted(forgotten.owners))
        if not found.rows and known is None and not unknown:
            raise SecurityError(
                "nothing is held of this customer",
                code="TG0834",
                where="forget",
                hint="ids are those of the source; `--unknown` keeps out a customer who has not come yet",
            )
        tickets = with_tickets(tracer, forgotten).tickets
        tombstone = Tombstone(
            id=owner, key_id=hashes.key_id, owners=tuple(sorted(forgotten.owners)), tickets=tuple(sorted(tickets)),
            reason=reason, actor=actor, at=now(),
        )  # fmt: skip
        keep_tombstone(settings, tombstone)
        reach("forget.buried")
        kept = next(each for each in all_tombstones(settings) if each.id == owner)
        return remove_customer(settings, kept, hashes)


def forget_again(settings: Settings, specs: Iterable[PipelineSpec]) -> tuple[Certificate, ...]:
    """Apply every tombstone anew, whatever a backup brought back."""
    with workspace_lock(settings, specs):
        return apply_tombstones(settings)


def apply_tombstones(settings: Settings) -> tuple[Certificate, ...]:
    """Remove what is held of forgotten customers; one look at the index where nothing is. The caller holds a lock.

    A tombstone that the ledger does not know (it is older) is applied in full, so that versions are marked again.
    """
    tombstones = all_tombstones(settings)
    everybody = load_forgotten(settings)
    if everybody is None:
        return ()
    ledger = open_ledger(settings)
    known = {each.id: each for each in ledger.tombstones()}
    tracer = Tracer(settings, everybody, skip_locked=True)
    held = tracer.holdings("", everybody, sources=False).to_do
    done = []
    for tombstone in tombstones:
        mine = Forgotten(everybody.hashes, owners=tombstone.owners, tickets=tombstone.tickets)
        is_new = known.get(tombstone.id) != tombstone or ledger.is_unfinished(tombstone.id)
        if is_new or (held and tracer.holdings(tombstone.id, mine, sources=False).to_do):
            keep_tombstone(settings, tombstone)
            done.append(remove_customer(settings, tombstone, everybody.hashes))
    return tuple(done)


@contextmanager
def workspace_lock(settings: Settings, specs: Iterable[PipelineSpec]) -> Iterator[None]:
    """Keep every pipeline from running while the block does.

    Raises:
        LockedError: one is running; it is named.
    """
    ledger = open_ledger(settings)
    with ExitStack() as stack:
        for name in (LOCK_NAME, *sorted(spec.name for spec in specs)):
            stack.enter_context(ledger.pipeline_lock(name, wait_s=0, run_id="tunegate forget"))
        yield


def _check_reason(reason: str, names: Iterable[str]) -> None:
    if not reason.strip():
        raise SecurityError(
            "a removal needs a reason", code="TG0833", where="forget", hint="--reason 'request of 3 May, case 17'"
        )
    if any(name in reason for name in names):
        raise SecurityError(
            "the reason names the customer, and it is kept",
            code="TG0833",
            where="forget",
            hint="name the request or the case instead",
        )
