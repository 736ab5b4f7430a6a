"""What a person says to a candidate that waits: yes, and it becomes champion if it still would by its verdict, or no.

A candidate waits because its pipeline asks for approval, because of a cooldown, or because it was rolled back before.
The answer is one transaction, as every move is; repeating it changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from flows.engine.champions import champion_version
from flows.engine.history import last_move, waiting_in, whole_history
from flows.engine.promotions import Promotions, check_expected, moved, needs
from flows.engine.rows import ENTRIES, EventRow
from schemas.errors import GateError
from tasks.failpoint import reach


class Approvals(Promotions):
    """Yes and no."""

    def approve(self, run_id: str, *, actor: str, reason: str = "", expected: str | None = None) -> EventRow:
        """A person lets the run's candidate in: it becomes champion, if it still would by its verdict.

        Args:
            expected: The champion that it is to take over from; None is whoever it is.

        Raises:
            ConfigError: TG0154, nobody is named.
            GateError: TG0630 the run waits for nobody, TG0631 it was rejected, TG0632 a later verdict replaced its
                own, TG0620 the champion moved since, TG0621 a later verdict took PROMOTE away.
            StorageError: TG0533, the history was altered.
        """
        needs("name", actor, "an answer", run_id)
        with self.write() as db:
            reach("ledger.promote.opened")
            events = whole_history(db)
            asked = _asked(events, run_id)
            last = _last_of(events, asked)
            if last.action in ENTRIES and last_move(events, asked.name) == last:
                return last
            if last.action == "reject":
                raise GateError(
                    f"run {run_id} was rejected by {last.actor} at {last.at}: {last.reason}",
                    code="TG0631",
                    where=asked.name,
                    hint="`tunegate promote PIPELINE VERSION --force --reason ...` overrules it, on the record",
                )
            check_expected(db, asked.name, expected)
            champion = champion_version(db, asked.name)
            if champion != asked.from_version:
                raise moved(asked.name, asked.from_version, champion)
            if last.action != "wait" or last.verdict_digest != asked.verdict_digest:
                raise _replaced(asked, last)
            event = self.enter(
                db, events, self.promotable(db, asked.name, asked.to_version), action="approve",
                from_version=champion, reason=reason, actor=actor, run_id=run_id, verdict_digest=asked.verdict_digest,
            )  # fmt: skip
            reach("ledger.promote.written")
        reach("ledger.promote.committed")
        return event

    def reject(self, run_id: str, *, actor: str, reason: str = "") -> EventRow:
        """A person keeps the run's candidate out; the champion stays.

        Raises:
            ConfigError: TG0154, nobody is named.
            GateError: TG0630 the run waits for nobody, TG0632 it has been decided otherwise.
            StorageError: TG0533, the history was altered.
        """
        needs("name", actor, "an answer", run_id)
        with self.write() as db:
            events = whole_history(db)
            asked = _asked(events, run_id)
            last = _last_of(events, asked)
            if last.action == "reject":
                return last
            candidate = self._row(db, asked.name, asked.to_version)
            if candidate is None or last.action != "wait" or last.verdict_digest != asked.verdict_digest:
                raise _replaced(asked, last)
            return self.enter(
                db, events, candidate, action="reject", from_version=asked.from_version, reason=reason, actor=actor,
                run_id=run_id, verdict_digest=asked.verdict_digest,
            )  # fmt: skip


def _asked(events: Sequence[EventRow], run_id: str) -> EventRow:
    asked = [event for event in events if event.action == "wait" and event.run_id == run_id]
    if not asked:
        waiting = [event for name in dict.fromkeys(e.name for e in events) for event in waiting_in(events, name)]
        told = ", ".join(f"{event.run_id} (v{event.to_version} of {event.name})" for event in waiting) or "none"
        raise GateError(
            f"run {run_id} waits for nobody's approval; runs that do: {told}",
            code="TG0630",
            where=run_id,
            hint="`tunegate history PIPELINE` shows what was asked and answered",
        )
    return asked[-1]


def _last_of(events: Sequence[EventRow], asked: EventRow) -> EventRow:
    """The last word about the candidate; at the least the question itself."""
    return next(event for event in reversed(events) if (event.name, event.to_version) == (asked.name, asked.to_version))


def _replaced(asked: EventRow, last: EventRow) -> GateError:
    return GateError(
        f"the verdict of run {asked.run_id} on v{asked.to_version} is not the last word: {last.action} at {last.at}"
        f" by {last.actor}{f', run {last.run_id}' if last.run_id else ''}",
        code="TG0632",
        where=asked.name,
        hint="`tunegate history PIPELINE` shows what may be approved",
    )
