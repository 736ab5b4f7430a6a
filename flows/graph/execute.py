"""Run a graph: what is left out, what is reused, what is made, and what may run side by side.

One loop, `drive`, decides; whoever calls it does: `submit` starts a node on a plain thread (`run_plainly`) or as a
Prefect task (`prefect_runner.py`). Results do not depend on what ran next to them, nor on the order in which nodes end.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar

from flows.graph.budget import Amounts, budget_of_machine, may_start, needs
from flows.graph.graph import Graph, Handle, Node, handles_in
from flows.graph.keys import InputDigest, KeyParts, step_key, why_changed
from flows.graph.store import Obtained, Store
from flows.workspace.disk import named_disk_errors
from schemas.artifacts import Artifact
from schemas.errors import ServiceError, StorageError, TunegateError
from tasks.children import THIS_PROCESS
from tasks.files import verify
from tasks.progress import Progress

T = TypeVar("T")
Future = Any
"""Of concurrent.futures or of Prefect: `drive` calls what both have, `result` and `add_done_callback`."""
RETRIES = 3
FIRST_DELAY_S = 2.0
POLL_S = 0.5


@dataclass(frozen=True)
class Outcome:
    """How a node ended: with a result, or left out for a reason."""

    result: Any = None
    key: str = ""
    reused: bool = False
    seconds: float = 0.0
    """Seconds it took to make and store; 0 when reused."""
    skipped: str = ""
    """Why the node has no result and needs none."""


class RunEndedError(Exception):
    """The run was cancelled while the node ran."""


class Observer:
    """Hears how the nodes of a run go. Called by one thread at a time; methods must be quick and must not raise."""

    def started(self, node: Node) -> None:
        """The node is being made."""

    def progressed(self, node: Node, done: int, total: int | None, unit: str, figures: dict[str, float]) -> None:
        """The node has done `done` of `total` units."""

    def ended(self, node: Node, outcome: Outcome) -> None:
        """The node has its result or is left out. In the order in which the driver learns of it."""

    def failed(self, node: Node, error: BaseException) -> None:
        """The node has no result; an error that it tolerates leaves it out afterwards."""

    def became(self, name: str, node: Node, outcome: Outcome) -> None:
        """What a growing node stands for is an earlier node's result."""


class Guard(Protocol):
    """Watches a limit over several results; knows what they mean, which a graph does not."""

    def arguments(self, node: Node, before: list[Any]) -> dict[str, Any]:
        """What to hand in besides the node's arguments. `before`: results that it depends on or of earlier stages."""

    def check(self, node: Node, before: list[Any], result: Any) -> None:
        """Raise what ends the run although the node has its result, made now or reused."""


class Run:
    """A graph on its way through a store.

    Args:
        live: Handed to acts (`Graph.act`); the graph does not look at it.
        budget: What nodes may occupy at the same time; that of the machine if None.
    """

    def __init__(
        self,
        graph: Graph,
        store: Store,
        *,
        observer: Observer | None = None,
        guard: Guard | None = None,
        live: Any = None,
        budget: Amounts | None = None,
    ) -> None:
        self.graph = graph
        self.store = store
        self.live = live
        self.budget: Amounts = budget_of_machine() if budget is None else dict(budget)
        self.outcomes: dict[str, Outcome] = {}
        self.cancelled = threading.Event()
        """Set to end the run: nothing new starts, and what reports progress ends at its next report."""
        self.elsewhere: dict[str, float] = {}
        """Nodes that another machine has made for this run -> seconds that it took: they do not count as reused."""
        self._made: dict[str, Outcome] = {}  # also what Prefect, or a signal, kept from being noted
        self._observer = observer or Observer()
        self._guard = guard
        self._lock = threading.Lock()
        graph.reader = self.result

    # --- what is known -------------------------------------------------------------------------------------------

    def outcome(self, handle: Any) -> Outcome | None:
        """How the handle's node ended; None while it has not."""
        return self.outcomes.get(self.graph.name_of(handle))

    def result(self, handle: T) -> T:
        """The result that the handle stands for.

        Raises:
            LookupError: the node has not run, or was left out.
        """
        if not isinstance(handle, Handle):
            return handle
        outcome = self.outcome(handle)
        if outcome is None or outcome.skipped:
            why = "has not run" if outcome is None else f"was left out: {outcome.skipped}"
            raise LookupError(f"{handle.node!r} {why}")
        result: T = outcome.result
        return result

    def find(self, handle: T | None) -> T | None:
        """As `result`; None when there is none."""
        if not isinstance(handle, Handle):
            return handle
        outcome = self.outcome(handle)
        return None if outcome is None or outcome.skipped else outcome.result

    def nodes(self, stage: str | None = None) -> Iterator[Node]:
        """The nodes of a stage, or all, in order; also those that are added meanwhile."""
        seen: set[Node] = set()
        while node := next((node for node in self.graph.nodes.values() if node not in seen), None):
            seen.add(node)
            if stage in (None, node.stage):
                yield node

    def ready(self, node: Node) -> bool:
        """Has it not ended, and has all that it takes, or that decides whether it is there?"""
        return node.name not in self.outcomes and all(
            self.outcome(handle) is not None for handle in (*node.handles, *node.scope.handles)
        )

    def before(self, node: Node) -> list[Any]:
        """Results that the node depends on, and all of earlier stages, in the order of the graph."""
        stages = self.graph.stages()
        earlier = set(stages[: stages.index(node.stage)])
        above = self.graph.ancestors(node)
        names = [each.name for each in self.graph.nodes.values() if each.stage in earlier or each in above]
        ends = [self.outcomes[name] for name in names if name in self.outcomes]
        return [end.result for end in ends if not end.skipped]

    def cancel(self) -> None:
        """End the run: nothing new starts, child processes save what they have, and progress raises."""
        self.cancelled.set()
        THIS_PROCESS.end()

    # --- decide and make -----------------------------------------------------------------------------------------

    def why_left_out(self, node: Node) -> str:
        """Why the node is left out, as far as is known; empty when it is wanted or that is not known yet."""
        for condition in node.scope.unless:
            if any(self.outcome(handle) is None for handle in handles_in(condition.values)):
                continue
            reason = condition.why(*(self.find(value) for value in condition.values))
            if reason:
                return reason
        for name, value in node.arguments.items():
            outcome = self.outcome(value) if isinstance(value, Handle) else None
            if outcome is not None and outcome.skipped and not node.accepts_none(name):
                return f"{self.graph.name_of(value)} was left out"
        return ""

    def decide(self, node: Node, *, deep: bool = True) -> Outcome | None:
        """Left out or reused; None when it has to be made. For a node that is ready.

        Args:
            deep: Read a stored result to its last byte, and put a damaged one aside.
        """
        reason = self.why_left_out(node)
        if reason:
            return Outcome(skipped=reason)
        if node.name in self._made:
            return self._made[node.name]
        if node.kind != "step":
            return None
        parts = self.parts(node)
        found = self.unchanged(node, parts, deep=deep)
        if found is not None:
            return Outcome(found, found.root.name, reused=True)
        if deep:
            found = self.store.find(node.folder, parts.key, node.returns, deep=True)
        else:
            looked = self.store.look(node.folder, parts.key, node.returns)
            found = looked if isinstance(looked, Artifact) else None
        if found is None:
            return None
        seconds = self.elsewhere.get(node.name)
        return Outcome(found, parts.key, reused=seconds is None, seconds=seconds or 0.0)

    def make(self, node: Node) -> Outcome:
        """Call the node's function and keep its result."""
        self.start(node)
        outcome = self._made[node.name] = self._act(node) if node.kind == "act" else self._make(node)
        return outcome

    def start(self, node: Node) -> None:
        """Say that the node is being made."""
        with self._lock:
            self._observer.started(node)

    def _act(self, node: Node) -> Outcome:
        began = time.monotonic()
        result = node.function(self.live, **self.arguments(node))
        return Outcome(result, seconds=time.monotonic() - began)

    def _make(self, node: Node) -> Outcome:
        parts = self.parts(node)

        def produce(out: Path) -> Artifact:
            _check_given(node)
            scratch = self.store.scratch(node.folder, parts.key) if node.takes("scratch") else None
            return self.call(node, out=out, scratch=scratch)

        obtained: Obtained[Artifact] = self.store.obtain(node.folder, parts.key, node.returns, produce, parts=parts)
        return Outcome(obtained.artifact, obtained.key, obtained.reused, obtained.seconds)

    def call(self, node: Node, *, out: Path, scratch: Path | None) -> Artifact:
        """Call a step's function with what it takes; nothing is kept."""
        given: dict[str, Any] = {"scratch": scratch} if node.takes("scratch") else {}
        if node.takes("progress"):
            given["progress"] = self._progress(node)
        if self._guard is not None:
            given |= self._guard.arguments(node, self.before(node))
        made: Artifact = node.function(out, **self.arguments(node), **given)
        return made

    def grow(self, node: Node) -> None:
        """Let the node add its nodes, or leave it out."""
        reason = self.why_left_out(node)
        if reason:
            self.end(node, Outcome(skipped=reason))
            return
        self.graph.grow_now(node)
        became = self.graph.became.get(node.name)
        if became is not None and became in self.outcomes:
            with self._lock:
                self._observer.became(node.id, self.graph.nodes[became], self.outcomes[became])

    def end(self, node: Node, outcome: Outcome) -> None:
        """Note how the node ended.

        Raises:
            TunegateError: what the guard raises.
        """
        if self._guard is not None and not outcome.skipped and node.kind == "step":
            self._guard.check(node, self.before(node), outcome.result)
        self.outcomes[node.name] = outcome
        with self._lock:
            self._observer.ended(node, outcome)

    def fail(self, node: Node, error: BaseException) -> None:
        """Note that the node failed; raises the error unless the node tolerates it."""
        with self._lock:
            self._observer.failed(node, error)
        if not (isinstance(error, TunegateError) and error.code in node.tolerates):
            raise error
        self.end(node, Outcome(skipped=f"{error.code}: {error.message}"))

    def parts(self, node: Node) -> KeyParts:
        """The parts of a step's key: the only way by which plan and run compute one. For a node that is ready.

        Raises:
            ValueError: an input is an artifact that no store has committed.
        """
        arguments = self.arguments(node)
        inputs = {name: digest_of_input(node, name, arguments[name]) for name in node.inputs}
        return step_key(node, {name: digest for name, digest in inputs.items() if digest is not None})

    def unchanged(
        self, node: Node, parts: KeyParts, *, unknown: frozenset[str] = frozenset(), deep: bool = False
    ) -> Artifact | None:
        """The earlier result that the step would extend, when all else that it was made from is the same.

        Args:
            unknown: Arguments that are not compared.
        """
        earlier = node.arguments.get(node.info.extends)
        if not isinstance(earlier, Artifact):
            return None
        old = self.store.parts(node.folder, earlier.root.name)
        if old is None or why_changed(old, parts, unknown=unknown | {node.info.extends}):
            return None
        found = self.store.look(node.folder, earlier.root.name, node.returns, deep=deep)
        return found if isinstance(found, Artifact) else None

    def arguments(self, node: Node) -> dict[str, Any]:
        """The node's arguments with results in place of handles; None for one that was left out, nothing in a tuple."""

        def resolved(value: Any) -> Any:
            if isinstance(value, Handle):
                return self.find(value)
            if isinstance(value, tuple) and handles_in(value):
                results = (self.find(item) for item in value)
                return tuple(result for result in results if result is not None)
            return value

        return {name: resolved(value) for name, value in node.arguments.items()}

    def _progress(self, node: Node) -> Progress:
        def progress(done: int, total: int | None, unit: str, **figures: float) -> None:
            if self.cancelled.is_set():
                raise RunEndedError("the run was cancelled")
            with self._lock:
                self._observer.progressed(node, done, total, unit, figures)

        return progress


def digest_of_input(node: Node, name: str, value: Any) -> InputDigest | None:
    """The digest of an input, those of a tuple in order; None for one that was left out."""
    if value is None:
        return None
    each = tuple(artifact.digest for artifact in (value if isinstance(value, tuple) else (value,)))
    if not all(each):
        raise ValueError(f"{node.name}: input {name} has no digest; only stored results can be inputs")
    return each if isinstance(value, tuple) else each[0]


def _check_given(node: Node) -> None:
    """Read what an earlier run left (the champion, say) to its last byte; results of this run were checked already.

    Raises:
        StorageError: TG0510 it is damaged, TG0549 it is another than it was.
    """
    for name, given in node.arguments.items():
        if isinstance(given, Artifact) and verify(given.root) != given.digest:
            raise StorageError(
                f"{name} of step {node.name} is not what it was", code="TG0549", where=str(given.root),
                hint="put it back from a backup, or go back to an earlier champion: `tunegate model rollback PIPELINE`",
            )  # fmt: skip


# --- drive ---------------------------------------------------------------------------------------------------------


def drive(
    run: Run,
    submit: Callable[[Node, Outcome | None], Future],
    *,
    stage: str | None = None,
    targets: tuple[Any, ...] | None = None,
    only: Callable[[Node], bool] = lambda _node: True,
    budget: Amounts | None = None,
) -> None:
    """Start each node as soon as its parents have ended and its resources are free, until all have ended.

    Resources are counted here, in one thread, before a node is submitted: a task run begins when its work begins, and
    no thread waits for a lock. Of several that could start the first in the graph's order does. After an error nothing
    new starts; what runs may end and is kept.

    Args:
        submit: Starts the node, or shows an outcome that is decided already; its future's result is the outcome.
        stage: Only this stage's nodes; all others that they need have ended.
        targets: Only what these handles need.
        only: Only these nodes; what depends on others stays where it is.

    Raises:
        TunegateError: a node failed.
        RunEndedError: `run.cancelled` was set.
        LookupError: a node can never start: what it takes has not run, or it needs more than the budget.
    """
    budget = dict(budget or run.budget)
    free = dict(budget)
    running: dict[Future, tuple[Node, dict[str, float]]] = {}
    done: SimpleQueue[Future] = SimpleQueue()
    decided: dict[Node, Outcome | None] = {}
    started: set[Node] = set()
    error: BaseException | None = None
    while True:
        waiting: list[dict[str, float]] = []
        for node in run.nodes(stage) if error is None and not run.cancelled.is_set() else ():
            if node in started or not only(node) or not run.ready(node) or not _wanted(run, node, targets):
                continue
            try:
                if node.kind == "grow" and not run.why_left_out(node):
                    run.grow(node)
                    continue
                if node not in decided:  # it may have waited for resources: its files are read once
                    decided[node] = run.decide(node)
            except Exception as raised:
                error = _settled(run, node, raised)
                if error is not None:
                    break
                continue
            outcome = decided[node]
            if outcome is None and _is_on_its_way(run, node, (each for each, _ in running.values())):
                del decided[node]  # it will be reused
                continue
            takes = {} if outcome is not None else needs(node, budget)
            if not may_start(takes, free, budget, waiting):
                waiting.append(takes)
            else:
                free = {name: amount - takes.get(name, 0.0) for name, amount in free.items()}
                started.add(node)
                try:
                    future = submit(node, outcome)
                except Exception as raised:
                    error = raised
                    break
                running[future] = node, takes
                future.add_done_callback(done.put)
        if not running:
            break
        future = _next(done)
        node, takes = running.pop(future)
        free = {name: amount + takes.get(name, 0.0) for name, amount in free.items()}
        try:
            run.end(node, future.result())
        except Exception as raised:
            if not run.cancelled.is_set():  # else it was stopped, and is no failure
                settled = _settled(run, node, raised)
                error = error or settled
    if run.cancelled.is_set():
        raise RunEndedError("the run was cancelled; what was begun goes on from there in the next run")
    if error is not None:
        raise error
    for node in run.nodes(stage):
        if node.name not in run.outcomes and only(node) and _wanted(run, node, targets):
            raise LookupError(f"{node.name} cannot start: {_what_is_missing(run, node, budget)}")


def _what_is_missing(run: Run, node: Node, budget: Amounts) -> str:
    absent = [parent.name for parent in run.graph.parents(node) if parent.name not in run.outcomes]
    if absent:
        return f"{', '.join(absent)} has not run"
    return f"it needs {needs(node, budget)} of {dict(budget)}"


def _is_on_its_way(run: Run, node: Node, running: Iterable[Node]) -> bool:
    """Does a running node make this node's very result? Of two with one key the first of the graph makes it, so that
    what a run has made does not depend on which thread comes first, and none waits for another."""
    alike = [other for other in running if node.kind == other.kind == "step" and node.folder == other.folder]
    return bool(alike) and run.parts(node).key in {run.parts(other).key for other in alike}


def _wanted(run: Run, node: Node, targets: tuple[Any, ...] | None) -> bool:
    if targets is None:
        return True
    ends = [run.graph.at(handle) for handle in targets if isinstance(handle, Handle)]
    return node in ends or node in run.graph.ancestors(*ends)


def _settled(run: Run, node: Node, error: Exception) -> Exception | None:
    """The error that ends the run; None when the node tolerates it."""
    try:
        run.fail(node, error)
    except Exception as raised:
        return raised
    return None


def _next(done: SimpleQueue[Future]) -> Future:
    while True:
        try:
            return done.get(timeout=POLL_S)  # wakes up for signals
        except Empty:
            continue


def run_plainly(
    run: Run,
    *,
    stage: str | None = None,
    targets: tuple[Any, ...] | None = None,
    only: Callable[[Node], bool] = lambda _node: True,
    budget: Amounts | None = None,
) -> None:
    """Run the graph, or a part of it as in `drive`, on threads of this process; transient errors are tried again.

    Raises:
        TunegateError: a node failed.
        RunEndedError: the run was cancelled.
    """
    with ThreadPoolExecutor(max_workers=64, thread_name_prefix="step") as pool:

        def submit(node: Node, outcome: Outcome | None) -> Future:
            return pool.submit(lambda: outcome or make_patiently(run, node))

        try:
            drive(run, submit, stage=stage, targets=targets, only=only, budget=budget)
        except Exception:
            raise
        except BaseException:  # Ctrl-C, SIGTERM: what runs must end, since leaving the block waits for it
            run.cancel()
            raise


def make_patiently(run: Run, node: Node, *, retries: int = RETRIES, delay_s: float = FIRST_DELAY_S) -> Outcome:
    """Make the node; a transient error of a step is tried again, as Prefect does with a task. An act is not: it may
    have changed the world before it failed."""
    try:
        return make_safely(run, node)
    except TunegateError as error:
        if node.kind == "act" or not error.transient or not retries or run.cancelled.wait(delay_s):
            raise
    return make_patiently(run, node, retries=retries - 1, delay_s=2 * delay_s)


def make_safely(run: Run, node: Node) -> Outcome:
    """Make the node; whatever it raises says nothing of a ticket and names the step."""
    with worded(node.name), named_disk_errors(run.store.root):
        return run.make(node)


@contextmanager
def worded(step: str) -> Iterator[None]:
    """Let no unexpected error's words through: they may quote a ticket, and Prefect keeps what it hears."""
    try:
        yield
    except RunEndedError:
        raise
    except TunegateError as error:
        if "--debug" not in sys.argv:  # what led to it may quote a ticket as well, and Prefect logs whole tracebacks
            raise error from None
        raise
    except (ConnectionError, TimeoutError) as error:
        raise ServiceError(
            f"{type(error).__name__} in step {step}", code="TG0704", where=step, hint="tunegate ops doctor"
        ) from None
    except Exception as error:
        raise TunegateError(
            f"internal error: {type(error).__name__} in step {step}", code="TG0001", where=step,
            hint="run it again as `tunegate --debug run ...` for the traceback",
        ) from None  # fmt: skip


@contextmanager
def repeat(run: Run, node: Node) -> Iterator[Artifact]:
    """Make the step once more, from nothing, and give its result for as long as the block lasts; keep none of it."""
    run.start(node)
    with tempfile.TemporaryDirectory(prefix="tunegate-repeat-") as scratch:

        def produce(out: Path) -> Artifact:
            return run.call(node, out=out, scratch=Path(scratch))

        with run.store.make_aside(node.returns, produce) as artifact:
            yield artifact
