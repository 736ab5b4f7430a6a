"""Moves of the champion: promotion by verdict, by force or by approval, and rollback.

Each is one compare-and-set transaction that also writes the event and the change for MLflow, so that it is never half
done. Each is idempotent: after a kill it is simply repeated. `flows/release.py` promotes,
`flows/cli/decisions.py` executes what a person decides.

A candidate waits because its pipeline requires approval, because of a cooldown, or because it, or one that was trained
in the same way, has been rolled back.
`Approvals` is a person's answer: approved, it becomes champion if its verdict still allows that; or rejected.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from flows.ledger.champions import Champions, blocked_before, champion_version, project
from flows.ledger.database import Database
from flows.ledger.erasures import marks_in
from flows.ledger.history import (
    NewEvent,
    all_events,
    append_event,
    checked_events,
    cooldown_of,
    entries_of,
    evidence_of,
    last_move,
    like_rolled_back,
    previous_of,
    waiting_in,
    was_rolled_back,
)
from flows.ledger.rows import ENTRIES, MOVES, Action, CandidateRow, EventRow, RunVerdict, VersionRef, VersionRow
from flows.workspace.clock import present
from schemas.counted import counted
from schemas.errors import ConfigError, GateError, SecurityError
from schemas.verdicts import Verdict
from tasks.storage.failpoint import reach


@dataclass(frozen=True)
class Waits:
    """When a candidate with PROMOTE waits for a person."""

    approval: bool = False
    """Always."""
    fresh_items: int = 0
    """If it was trained in the same way as a version that was rolled back, until so many of its held-out items did not
    judge that version."""


NEVER = Waits()


class Promotions(Champions):
    def promote(
        self, name: str, *, expected: str | None, version: str, verdict: RunVerdict, waits: Waits = NEVER
    ) -> EventRow:
        """Make the version champion if `expected` still is, or record that it waits for a person.

        It waits when approval is required, during a cooldown, when it was itself rolled back, and when it was trained
        in the same way as a version that was; a version whose verdict was rejected stays rejected. The returned event's
        action says which, its reason says why.

        Args:
            expected: The champion that the evaluation compared with; None when there was none.

        Raises:
            GateError: TG0620 the champion moved meanwhile, TG0621 the version has no verdict PROMOTE.
            StorageError: TG0580, the history was altered.
        """
        with self.write() as db:
            reach("ledger.promote.opened")
            events = checked_events(db)
            champion = champion_version(db, name)
            here = last_move(events, name)
            if here is not None and champion == version:
                return here
            if champion != expected:
                raise moved(name, expected, champion)
            candidate = self.promotable(db, name, version)
            run_id, digest = verdict.run_id, verdict.digest or candidate.ref.verdict_digest
            held = _why_held(db, events, candidate, waits, at=present())
            same = _answered(events, name, version, run_id, digest)
            if same is not None and (same.action == "reject" or held):
                return same
            action: Action = "wait" if held else "promote"
            new = NewEvent(action, champion, held or verdict.reason, "pipeline", run_id, digest)
            event = self.enter(db, events, candidate, new)
            reach("ledger.promote.written")
        reach("ledger.promote.committed")
        return event

    def force(
        self, name: str, *, expected: str | None, version: str, reason: str, actor: str, uncompared: bool = False
    ) -> EventRow:
        """Make the version champion past the gate; the event says that it was forced, and its verdict.

        Args:
            uncompared: The verdict is UNCOMPARED, which a person accepts; without it, any other verdict.

        Raises:
            ConfigError: TG0139, no reason was given.
            GateError: TG0620 the champion is no longer the expected one, TG0621 there is no such candidate, its verdict
                is not the one that is accepted, or it is champion already by another decision than this one.
            StorageError: TG0580, the history was altered.
        """
        require("reason", reason, "a forced promotion", name)
        with self.write() as db:
            reach("ledger.promote.opened")
            events = checked_events(db)
            champion = champion_version(db, name)
            here = last_move(events, name)
            if here is not None and champion == version:
                if (here.action, here.actor, here.reason) == ("force", actor, reason):
                    return here  # the same decision once more, as after a kill
                raise _champion_already(here)
            if champion != expected:
                raise moved(name, expected, champion)
            candidate = self._row(db, name, version) if version.isdecimal() else None
            if candidate is None:
                raise _unfit(name, version, None)
            if uncompared != (candidate.verdict == "UNCOMPARED"):
                raise _unaccepted(name, version, candidate.verdict)
            ref = candidate.ref
            new = NewEvent("force", champion, reason, actor, ref.run_id, ref.verdict_digest)
            event = self.enter(db, events, candidate, new)
            reach("ledger.promote.written")
        reach("ledger.promote.committed")
        return event

    def rollback(
        self,
        name: str,
        *,
        reason: str,
        to: str | None = None,
        actor: str = "command line",
        cooldown_days: float = 0.0,
        expected: str | None = None,
    ) -> VersionRef:
        """Make an earlier champion champion again and return it; no gate judges it.

        Args:
            expected: The champion that it replaces; None is any.
            to: Its version; None is the one that the current champion replaced.
            cooldown_days: For this long nothing is promoted without a person.

        Raises:
            ConfigError: TG0139 no reason was given, TG0159 there is nothing to go back to, or the version never was
                champion or is champion now.
            GateError: TG0620, the champion is no longer the expected one.
            StorageError: TG0580, the history was altered.
        """
        require("reason", reason, "a rollback", name)
        until = present() + timedelta(days=cooldown_days)
        with self.write() as db:
            reach("ledger.promote.opened")
            events = checked_events(db)
            check_expected(db, name, expected)
            target = _rollback_target(events, name, champion_version(db, name), to)
            candidate = self._row(db, name, target)
            if candidate is None:
                raise _unfit(name, target, None)
            digest = entries_of(events, name)[target].verdict_digest
            ends = until.isoformat(timespec="seconds") if cooldown_days else ""
            new = NewEvent("rollback", champion_version(db, name), reason, actor, "", digest, until=ends)
            self.enter(db, events, candidate, new)
            reach("ledger.promote.written")
            back = self._champion(db, name)
        reach("ledger.promote.committed")
        return back

    def held(self, name: str, version: str, waits: Waits = NEVER, *, at: datetime | None = None) -> str:
        """Return why a promotion of the version would wait for a person now; empty when it would not."""
        with self.read() as db:
            candidate = self._row(db, name, version)
            if candidate is None:
                raise _unfit(name, version, None)
            return _why_held(db, all_events(db), candidate, waits, at=at or present())

    def enter(self, db: Database, events: Sequence[EventRow], candidate: VersionRow, new: NewEvent) -> EventRow:
        """Append the event and the change for MLflow, within the caller's transaction.

        Raises:
            SecurityError: TG0832, the version learned from a forgotten customer and would become champion.
        """
        if new.action in MOVES:
            self._refuse_marked(db, candidate)
        event = append_event(db, events, candidate, replace(new, note=blocked_before(db, candidate)))
        name, version = event.name, event.to_version
        if isinstance(candidate, CandidateRow):  # MLflow registers models
            change = {"name": name, "version": version, "previous": new.from_version, "run_id": new.run_id}
            project(db, "champion", change)
        return event

    def promotable(self, db: Database, name: str, version: str) -> VersionRow:
        """Return the candidate, if its last verdict is PROMOTE.

        Raises:
            GateError: TG0621, it is not.
        """
        candidate = self._row(db, name, version)
        if candidate is None or candidate.verdict != "PROMOTE":
            raise _unfit(name, version, candidate)
        return candidate

    def _refuse_marked(self, db: Database, candidate: VersionRow) -> None:
        marks = marks_in(db, candidate.ref.name, candidate.ref.version)
        if marks:
            raise SecurityError(
                f"{marks[-1].summary}; it cannot become champion",
                code="TG0832",
                where=candidate.ref.name,
                hint="run the pipeline: it trains without those tickets",
            )


def _why_held(db: Database, events: Sequence[EventRow], candidate: VersionRow, waits: Waits, *, at: datetime) -> str:
    """Return why a person has to approve the candidate; empty when no one has to."""
    name, version = candidate.ref.name, candidate.ref.version
    fallen = was_rolled_back(events, name, version)
    if fallen is not None:
        return f"v{version} was rolled back ({fallen.reason}) at {fallen.at} by {fallen.actor}"
    cooling = cooldown_of(events, name, at=at)
    if cooling is not None:
        return f"cooldown until {cooling.until} after the rollback from v{cooling.from_version}"
    alike = like_rolled_back(events, candidate) if waits.fresh_items else None
    if alike is not None:
        rollback, promoted = alike
        mine, theirs = (_items_of(db, evidence_of(each)) for each in (candidate, promoted))
        n_fresh = len(mine - theirs) if theirs else 0  # unknown items may be the same
        if n_fresh < waits.fresh_items:
            bad = f"v{promoted.to_version}"
            return (
                f"v{version} was trained in the same way as {bad}, which was rolled back ({rollback.reason}) at "
                f"{rollback.at}; {n_fresh} of its {counted(len(mine), 'held-out item')} did not judge {bad}, and "
                f"register.cooldown_items is {waits.fresh_items}"
            )
    return "register.approval is required" if waits.approval else ""


def _items_of(db: Database, evidence: Mapping[str, str]) -> frozenset[str]:
    row = db.execute("SELECT items FROM held_out WHERE digest = ?", (evidence.get("items", ""),)).fetchone()
    return frozenset() if row is None else frozenset(row["items"].split())


def _answered(events: Sequence[EventRow], name: str, version: str, run_id: str, verdict_digest: str) -> EventRow | None:
    """Return the event that already answers this promotion: this run's `wait`, or a rejection of the same verdict."""
    last = next((event for event in reversed(events) if (event.name, event.to_version) == (name, version)), None)
    if last is None or last.verdict_digest != verdict_digest:
        return None
    return last if last.action == "reject" or (last.action == "wait" and last.run_id == run_id) else None


def _rollback_target(events: Sequence[EventRow], name: str, champion: str | None, to: str | None) -> str:
    if champion is None:
        raise ConfigError(f"{name} has no champion", code="TG0159", where=name, hint="`tunegate model champion`")
    entries = entries_of(events, name)
    target = to if to is not None else previous_of(events, name)
    if target is None:
        raise ConfigError(
            f"v{champion} is the first champion of {name}; there is nothing to go back to", code="TG0159", where=name
        )
    if target not in entries or target == champion:
        state = "is champion already" if target == champion else "has never been champion"
        allowed = ", ".join(f"v{version}" for version in entries if version != champion) or "none"
        raise ConfigError(
            f"v{target} {state}; earlier champions: {allowed}",
            code="TG0159",
            where=name,
            hint="`tunegate model champion` shows the history",
        )
    return target


def require(what: str, given: str, by: str, where: str) -> None:
    """Raise ConfigError (TG0139) when a decision lacks its reason or its name."""
    if not given.strip():
        hint = "--reason 'what went wrong'" if what == "reason" else "--by 'your name'"
        raise ConfigError(f"{by} needs a {what}", code="TG0139", where=where, hint=hint)


def _unfit(name: str, version: str, candidate: VersionRow | None) -> GateError:
    state = f"has verdict {candidate.verdict}; only PROMOTE is promoted" if candidate else "is not in the ledger"
    return GateError(
        f"v{version} of {name} {state}",
        code="TG0621",
        where=name,
        hint="`tunegate model history PIPELINE` lists the candidates",
    )


def _champion_already(event: EventRow) -> GateError:
    return GateError(
        f"v{event.to_version} of {event.name} is champion already, since {event.at} ({event.action} by {event.actor}); "
        "nothing was changed",
        code="TG0621",
        where=event.name,
        hint="`tunegate model history PIPELINE` shows every decision about it",
    )


def _unaccepted(name: str, version: str, verdict: Verdict) -> GateError:
    if verdict == "UNCOMPARED":
        message, flag = "was not compared with the champion", "--accept-uncompared"
    else:
        message, flag = f"has verdict {verdict}, not UNCOMPARED", "--force"
    return GateError(
        f"v{version} of {name} {message}",
        code="TG0621",
        where=name,
        hint=f"`tunegate model promote PIPELINE {version} {flag} --reason ...` makes it champion, on the record",
    )


def check_expected(db: Database, name: str, expected: str | None) -> None:
    """Raise GateError (TG0620) when the champion is another version than the person who decides expects."""
    champion = champion_version(db, name)
    if expected is not None and champion != expected:
        raise GateError(
            f"the champion is {f'v{champion}' if champion is not None else 'none'}, and v{expected} was expected",
            code="TG0620",
            where=name,
            hint="`tunegate model history PIPELINE` shows who moved it, and why",
        )


def moved(name: str, expected: str | None, champion: str | None) -> GateError:
    """Make the error for a verdict against a former champion."""
    was = f"v{expected}" if expected is not None else "none"
    is_now = f"v{champion}" if champion is not None else "none"
    return GateError(
        f"champion moved from {was} to {is_now} since this evaluation",
        code="TG0620",
        where=name,
        hint="run the pipeline again: the candidate is compared with the new champion, finished steps are reused",
    )


class Approvals(Promotions):
    def approve(self, run_id: str, *, actor: str, reason: str = "", expected: str | None = None) -> EventRow:
        """Make the run's candidate champion on a person's word, if its verdict still allows it.

        Args:
            expected: The champion that it replaces; None is any.

        Raises:
            ConfigError: TG0139, no name is given.
            GateError: TG0621 the run waits for no approval, it was rejected, or a later verdict replaced its own;
                TG0620 the champion moved since.
            StorageError: TG0580, the history was altered.
        """
        require("name", actor, "an answer", run_id)
        with self.write() as db:
            reach("ledger.promote.opened")
            events = checked_events(db)
            request = _find_request(events, run_id)
            last = _last_of(events, request)
            if last.action in ENTRIES and last_move(events, request.name) == last:
                return last
            if last.action == "reject":
                raise GateError(
                    f"run {run_id} was rejected by {last.actor} at {last.at}: {last.reason}",
                    code="TG0621",
                    where=request.name,
                    hint="`tunegate model promote PIPELINE VERSION --force --reason ...` overrules it, on the record",
                )
            check_expected(db, request.name, expected)
            champion = champion_version(db, request.name)
            if champion != request.from_version:
                raise moved(request.name, request.from_version, champion)
            if last.action != "wait" or last.verdict_digest != request.verdict_digest:
                raise _replaced(request, last)
            candidate = self.promotable(db, request.name, request.to_version)
            new = NewEvent("approve", champion, reason, actor, run_id, request.verdict_digest)
            event = self.enter(db, events, candidate, new)
            reach("ledger.promote.written")
        reach("ledger.promote.committed")
        return event

    def reject(self, run_id: str, *, actor: str, reason: str = "") -> EventRow:
        """Reject the run's candidate on a person's word; the champion stays.

        Raises:
            ConfigError: TG0139, no name is given.
            GateError: TG0621, the run waits for no approval, or was decided otherwise.
            StorageError: TG0580, the history was altered.
        """
        require("name", actor, "an answer", run_id)
        with self.write() as db:
            events = checked_events(db)
            request = _find_request(events, run_id)
            last = _last_of(events, request)
            if last.action == "reject":
                return last
            candidate = self._row(db, request.name, request.to_version)
            if candidate is None or last.action != "wait" or last.verdict_digest != request.verdict_digest:
                raise _replaced(request, last)
            new = NewEvent("reject", request.from_version, reason, actor, run_id, request.verdict_digest)
            return self.enter(db, events, candidate, new)


def _find_request(events: Sequence[EventRow], run_id: str) -> EventRow:
    requests = [event for event in events if event.action == "wait" and event.run_id == run_id]
    if not requests:
        waiting = [event for name in dict.fromkeys(e.name for e in events) for event in waiting_in(events, name)]
        others = ", ".join(f"{event.run_id} (v{event.to_version} of {event.name})" for event in waiting) or "none"
        raise GateError(
            f"run {run_id} does not wait for approval; runs that do: {others}",
            code="TG0621",
            where=run_id,
            hint="`tunegate model history PIPELINE` shows approvals and rejections",
        )
    return requests[-1]


def _last_of(events: Sequence[EventRow], request: EventRow) -> EventRow:
    """Return the last event about the candidate; at least the `wait` itself."""
    candidate = request.name, request.to_version
    return next(event for event in reversed(events) if (event.name, event.to_version) == candidate)


def _replaced(request: EventRow, last: EventRow) -> GateError:
    return GateError(
        f"the verdict of run {request.run_id} on v{request.to_version} is not the last word: {last.action} at {last.at}"
        f" by {last.actor}{f', run {last.run_id}' if last.run_id else ''}",
        code="TG0621",
        where=request.name,
        hint="`tunegate model history PIPELINE` shows what may be approved",
    )
