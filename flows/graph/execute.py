"""Run a graph: decide what is left out, what is reused, what is made, and what may run in parallel.

One loop, `drive`, decides; its caller executes: `submit` starts a node on a plain thread (`run_plainly`) or as a
Prefect task (`prefect_runner.py`). Results do not depend on what ran next to them, nor on the order in which nodes end.
"""

import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar

from flows.graph.budget import Amounts, budget_of_machine, may_start, needs
from flows.graph.graph import Graph, Handle, Node, handles_in, members
from flows.graph.keys import InputDigest, KeyParts, step_key, why_changed
from flows.graph.store import Obtained, Store
from flows.workspace.disk import named_disk_errors
from schemas.artifacts import Artifact, ArtifactGroup
from schemas.errors import ServiceError, StorageError, TunegateError
from tasks.compute.children import THIS_PROCESS
from tasks.model.import_once import import_for_step
from tasks.progress import Progress
from tasks.storage.sealed_folder import verify

T = TypeVar("T")
Future = Any
"""Of concurrent.futures or of Prefect: `drive` uses what both have, `result` and `add_done_callback`."""
RETRIES = 3
FIRST_DELAY_S = 2.0
POLL_S = 0.5
END_WITHIN_S = 30.0
"""Seconds that running steps have after Ctrl-C or SIGTERM; as long as Prefect's worker grants a run."""
TERMINATED = 143
"""Exit code of a process ended by SIGTERM."""


@dataclass(frozen=True)
class NodeOutcome:
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


class CancelSignal(BaseException):
    """Raised in the main thread when the run is cancelled while no node runs: it waits, or reads its source."""


class Observer:
    """Is notified of a run's nodes. Called by one thread at a time; methods must be quick and must not raise."""

    def started(self, node: Node) -> None:
        """The node has started."""

    def progressed(self, node: Node, done: int, total: int | None, unit: str, figures: dict[str, float]) -> None:
        """The node has done `done` of `total` units."""

    def ended(self, node: Node, outcome: NodeOutcome) -> None:
        """The node has its result or is left out. In the order in which the driver notices."""

    def failed(self, node: Node, error: BaseException) -> None:
        """The node failed; if it tolerates the error, it is left out afterwards."""

    def became(self, name: str, node: Node, outcome: NodeOutcome) -> None:
        """An expanding node has returned the result of an earlier node."""


class Guard(Protocol):
    """Watches a limit across several results; unlike the graph, it knows what they mean."""

    def arguments(self, node: Node, before: list[Any]) -> dict[str, Any]:
        """Return further arguments of the node. `before`: results that it depends on, and those of earlier stages."""

    def check(self, node: Node, before: list[Any], result: Any) -> None:
        """Raise to end the run although the node has its result, new or reused."""


class Run:
    """The execution of a graph with a store.

    Args:
        live: Passed to effects (`Graph.effect`); the graph itself does not use it.
        budget: What nodes may use at the same time; None for what the machine has.
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
        self.outcomes: dict[str, NodeOutcome] = {}
        self.cancelled = threading.Event()
        """Set to end the run: nothing new starts, and a step that reports progress ends at its next report."""
        self.made_by: Callable[[str], str] = lambda _key: ""
        """Key -> the run that made the result, for people; empty if that is not known."""
        self.elsewhere: dict[str, float] = {}
        """Nodes that another machine made for this run -> seconds that it took: they do not count as reused."""
        self.raised: BaseException | None = None
        """The first error of our own code, or signal: Prefect raises its own instead if its server does not answer."""
        self._made: dict[str, NodeOutcome] = {}  # includes what Prefect, or a signal, kept from being recorded
        self._observer = observer or Observer()
        self._guard = guard
        self._lock = threading.Lock()
        graph.reader = self.result

    # --- what is known -------------------------------------------------------------------------------------------

    def outcome(self, handle: Any) -> NodeOutcome | None:
        """Return how the handle's node ended; None while it has not."""
        return self.outcomes.get(self.graph.name_of(handle))

    def result(self, handle: T) -> T:
        """Return the handle's result.

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
        """Like `result`; None if there is none."""
        if not isinstance(handle, Handle):
            return handle
        outcome = self.outcome(handle)
        return None if outcome is None or outcome.skipped else outcome.result

    def nodes(self, stage: str | None = None) -> Iterator[Node]:
        """Yield the nodes of a stage, or all, in order, including those that are added meanwhile."""
        seen: set[Node] = set()
        while node := next((node for node in self.graph.nodes.values() if node not in seen), None):
            seen.add(node)
            if stage in (None, node.stage):
                yield node

    def ready(self, node: Node) -> bool:
        """Return whether it has not ended, but all its inputs and conditions have."""
        return node.name not in self.outcomes and all(
            self.outcome(handle) is not None for handle in (*node.handles, *node.scope.handles)
        )

    def knows_inputs(self, node: Node) -> bool:
        """Return whether all inputs and conditions have ended, whatever else the node waits for."""
        conditions = (handle for each in node.scope.unless for handle in handles_in(each.values))
        return all(self.outcome(handle) is not None for handle in (*node.handles, *conditions))

    def before(self, node: Node) -> list[Any]:
        """Return the results that the node depends on, and all of earlier stages, in the order of the graph."""
        stages = self.graph.stages()
        earlier = set(stages[: stages.index(node.stage)])
        above = self.graph.ancestors(node)
        names = [each.name for each in self.graph.nodes.values() if each.stage in earlier or each in above]
        kept = {name for name in names if self.graph.nodes[name].kept is not None}  # no rows of this run
        ends = [self.outcomes[name] for name in names if name in self.outcomes and name not in kept]
        return [end.result for end in ends if not end.skipped]

    @contextmanager
    def keeping_errors(self) -> Iterator[None]:
        """Keep what is raised in the block, which is all our own code, as `raised`."""
        try:
            yield
        except BaseException as error:
            self.raised = self.raised or error
            raise

    def cancel(self) -> None:
        """End the run: nothing new starts, child processes save what they have, and progress raises."""
        self.cancelled.set()
        THIS_PROCESS.end()

    # --- decide and make -----------------------------------------------------------------------------------------

    def why_left_out(self, node: Node) -> str:
        """Return why the node is left out; empty if it is not, or that is not known yet."""
        for condition in node.scope.unless:
            if any(self.outcome(handle) is None for handle in handles_in(condition.values)):
                continue
            reason = condition.why(*(self.find(value) for value in condition.values))
            if reason:
                return reason
        for name, value in members(node.arguments):
            outcome = self.outcome(value) if isinstance(value, Handle) else None
            if outcome is not None and outcome.skipped and not node.accepts_none(name):
                return f"{self.graph.name_of(value)} was left out"
        return ""

    def decide(self, node: Node, *, deep: bool = True) -> NodeOutcome | None:
        """Return that it is left out or reused; None if it has to be made. For a node that is ready.

        Args:
            deep: Read every byte of a stored result, and move a damaged one away.
        """
        reason = self.why_left_out(node)
        if reason:
            return NodeOutcome(skipped=reason)
        if node.name in self._made:
            return self._made[node.name]
        if node.kind != "step":
            return None
        if node.kept is not None:
            if deep:
                _check_unchanged(node.name, node.kept)
            return NodeOutcome(node.kept, node.kept.root.name, reused=True)
        parts = self.parts(node)
        found = self.unchanged(node, parts, deep=deep)
        if found is not None:
            return NodeOutcome(found, found.root.name, reused=True)
        if deep:
            found = self.store.find(node.folder, parts.key, node.returns, deep=True)
        else:
            found = self.store.whole(node.folder, parts.key, node.returns)
        if found is None:
            return None
        seconds = self.elsewhere.get(node.name)
        return NodeOutcome(found, parts.key, reused=seconds is None, seconds=seconds or 0.0)

    def make(self, node: Node) -> NodeOutcome:
        """Call the node's function and store its result."""
        self.start(node)
        outcome = self._made[node.name] = self._effect(node) if node.kind == "effect" else self._make(node)
        return outcome

    def start(self, node: Node) -> None:
        """Notify the observer that the node has started."""
        with self._lock:
            self._observer.started(node)

    def _effect(self, node: Node) -> NodeOutcome:
        began = time.monotonic()
        result = node.function(self.live, **self.arguments(node))
        return NodeOutcome(result, seconds=time.monotonic() - began)

    def _make(self, node: Node) -> NodeOutcome:
        parts = self.parts(node)

        def produce(out: Path) -> Artifact:
            _check_given(node)
            scratch = self.store.scratch(node.folder, parts.key) if node.takes("scratch") else None
            return self.call(node, out=out, scratch=scratch)

        obtained: Obtained[Artifact] = self.store.obtain(node.folder, parts.key, node.returns, produce, parts=parts)
        return NodeOutcome(obtained.artifact, obtained.key, obtained.reused, obtained.seconds)

    def call(self, node: Node, *, out: Path, scratch: Path | None) -> Artifact:
        """Call a step's function with its arguments; store nothing."""
        given: dict[str, Any] = {"scratch": scratch} if node.takes("scratch") else {}
        if node.takes("progress"):
            given["progress"] = self._progress(node)
        if self._guard is not None:
            given |= self._guard.arguments(node, self.before(node))
        made: Artifact = node.function(out, **self.arguments(node), **given)
        return made

    def expand(self, node: Node) -> None:
        """Let the node add its nodes, or leave it out."""
        reason = self.why_left_out(node)
        if reason:
            self.end(node, NodeOutcome(skipped=reason))
            return
        self.graph.expand_now(node)
        became = self.graph.became.get(node.name)
        if became is not None and became in self.outcomes:
            with self._lock:
                self._observer.became(node.id, self.graph.nodes[became], self.outcomes[became])

    def end(self, node: Node, outcome: NodeOutcome) -> None:
        """Record how the node ended.

        Raises:
            TunegateError: the guard raised it.
        """
        if self._guard is not None and not outcome.skipped and node.kind == "step":
            self._guard.check(node, self.before(node), outcome.result)
        self.outcomes[node.name] = outcome
        with self._lock:
            self._observer.ended(node, outcome)

    def fail(self, node: Node, error: BaseException) -> None:
        """Record that the node failed; raise the error unless the node tolerates it."""
        with self._lock:
            self._observer.failed(node, error)
        if not (isinstance(error, TunegateError) and error.code in node.tolerates):
            raise error
        self.end(node, NodeOutcome(skipped=f"{error.code}: {error.message}"))

    def parts(self, node: Node, *, unknown: frozenset[str] = frozenset()) -> KeyParts:
        """Return the parts of a step's key; plan and run compute keys only here. For a node that is ready.

        Args:
            unknown: Inputs to leave out, of a node that is not ready.

        Raises:
            ValueError: an input is an artifact that no store has committed.
        """
        arguments = dict(members(self.arguments(node)))
        inputs = {name: _digest_of_input(node, name, arguments[name]) for name in node.inputs if name not in unknown}
        return step_key(node, {name: digest for name, digest in inputs.items() if digest is not None})

    def unchanged(
        self, node: Node, parts: KeyParts, *, unknown: frozenset[str] = frozenset(), deep: bool = False
    ) -> Artifact | None:
        """Return the earlier result that the step would extend, if everything else it was made from is the same.

        Args:
            unknown: Arguments that are not compared.
        """
        earlier = node.arguments.get(node.info.extends)
        if not isinstance(earlier, Artifact):
            return None
        old = self.store.parts(node.folder, earlier.root.name)
        if old is None or why_changed(old, parts, unknown=unknown | {node.info.extends}):
            return None
        found: Artifact | None = self.store.whole(node.folder, earlier.root.name, node.returns, deep=deep)
        return found

    def arguments(self, node: Node) -> dict[str, Any]:
        """Return the node's arguments with results for handles; a node that was left out is None, absent in a tuple."""

        def resolved(value: Any) -> Any:
            if isinstance(value, Handle):
                return self.find(value)
            if isinstance(value, ArtifactGroup):
                return replace(value, **{name: resolved(each) for name, each in vars(value).items()})
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


def _digest_of_input(node: Node, name: str, value: Any) -> InputDigest | None:
    """Return the digest of an input, or the digests of a tuple in order; None for one that was left out."""
    if value is None:
        return None
    each = tuple(artifact.digest for artifact in (value if isinstance(value, tuple) else (value,)))
    if not all(each):
        raise ValueError(f"{node.name}: input {name} has no digest; only stored results can be inputs")
    return each if isinstance(value, tuple) else each[0]


def _check_given(node: Node) -> None:
    """Read every byte of inputs from earlier runs (the champion, say); results of this run were checked already.

    Raises:
        StorageError: TG0510 one is damaged, TG0549 one has changed.
    """
    for name, given in members(node.arguments):
        if isinstance(given, Artifact):
            _check_unchanged(f"{name} of step {node.name}", given)


def _check_unchanged(what: str, given: Artifact) -> None:
    if verify(given.root) != given.digest:
        raise StorageError(
            f"{what} has changed", code="TG0549", where=str(given.root),
            hint="restore it from a backup, or go back to an earlier champion: `tunegate model rollback PIPELINE`",
        )  # fmt: skip


# --- drive ---------------------------------------------------------------------------------------------------------


def drive(
    run: Run,
    submit: Callable[[Node, NodeOutcome | None], Future],
    *,
    stage: str | None = None,
    targets: tuple[Any, ...] | None = None,
    only: Callable[[Node], bool] = lambda _node: True,
) -> None:
    """Start each node as soon as its parents have ended and its resources are free, until all have ended.

    Resources are counted here, in one thread, before a node is submitted: a task run begins when its work begins, and
    no thread waits for a lock. Of several that could start, the first in the graph's order does. After an error nothing
    new starts; running nodes finish and their results are kept.

    Args:
        submit: Starts the node, or shows an outcome that is already decided; its future's result is the outcome.
        stage: Only this stage's nodes; all others that they need have ended.
        targets: Only what these handles need.
        only: Only these nodes; what depends on others does not run.

    Raises:
        TunegateError: a node failed.
        RunEndedError: `run.cancelled` was set.
        LookupError: a node can never start: an input has not run, or it needs more than the budget.
    """
    free = dict(run.budget)
    running: dict[Future, tuple[Node, dict[str, float]]] = {}
    done: SimpleQueue[Future] = SimpleQueue()
    decided: dict[Node, NodeOutcome | None] = {}
    started: set[Node] = set()
    error: BaseException | None = None
    while True:
        waiting: list[dict[str, float]] = []
        for node in run.nodes(stage) if error is None and not run.cancelled.is_set() else ():
            if node in started or not only(node) or not run.ready(node) or not _wanted(run, node, targets):
                continue
            try:
                if node.kind == "expand" and not run.why_left_out(node):
                    run.expand(node)
                    continue
                if node not in decided:  # it may have waited for resources, and its files are read only once
                    decided[node] = run.decide(node)
            except Exception as raised:
                error = _settled(run, node, raised)
                if error is not None:
                    break
                continue
            outcome = decided[node]
            if outcome is None and _is_being_made(run, node, (each for each, _ in running.values())):
                del decided[node]  # it will be reused
                continue
            takes = {} if outcome is not None else needs(node, run.budget)
            if not may_start(takes, free, run.budget, waiting):
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
            outcome = future.result()
        except TunegateError as raised:
            if not run.cancelled.is_set():  # else it was stopped, which is not a failure
                settled = _settled(run, node, raised)
                error = error or settled
        except Exception as raised:  # of what executes the node, Prefect say: no failure of the node
            error = error or raised
        else:
            try:
                with run.keeping_errors():
                    run.end(node, outcome)
            except Exception as raised:
                settled = _settled(run, node, raised)
                error = error or settled
    if run.cancelled.is_set():
        raise RunEndedError("the run was cancelled; the next run continues from here")
    if error is not None:
        raise error
    for node in run.nodes(stage):
        if node.name not in run.outcomes and only(node) and _wanted(run, node, targets):
            raise LookupError(f"{node.name} cannot start: {_what_is_missing(run, node)}")


def _what_is_missing(run: Run, node: Node) -> str:
    absent = [parent.name for parent in run.graph.parents(node) if parent.name not in run.outcomes]
    if absent:
        return f"{', '.join(absent)} has not run"
    return f"it needs {needs(node, run.budget)} of {dict(run.budget)}"


def _is_being_made(run: Run, node: Node, running: Iterable[Node]) -> bool:
    """Return whether a running node makes this very result."""
    # Of two nodes with one key the first in the graph makes the result: so what a run has made does not depend on which
    # thread comes first, and no thread waits for another.
    alike = [other for other in running if node.kind == other.kind == "step" and node.folder == other.folder]
    return bool(alike) and run.parts(node).key in {run.parts(other).key for other in alike}


def _wanted(run: Run, node: Node, targets: tuple[Any, ...] | None) -> bool:
    if targets is None:
        return True
    ends = [run.graph.at(handle) for handle in targets if isinstance(handle, Handle)]
    return node in ends or node in run.graph.ancestors(*ends)


def _settled(run: Run, node: Node, error: Exception) -> Exception | None:
    """Return the error that ends the run; None if the node tolerates it."""
    try:
        with run.keeping_errors():
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
) -> None:
    """Run the graph, or a part of it as in `drive`, on threads of this process; retry transient errors.

    Raises:
        TunegateError: a node failed.
        RunEndedError: the run was cancelled.
    """
    futures: dict[str, Future] = {}
    with ThreadPoolExecutor(max_workers=64, thread_name_prefix="step") as pool:

        def submit(node: Node, outcome: NodeOutcome | None) -> Future:
            futures[node.name] = pool.submit(lambda: outcome or make_with_retries(run, node))
            return futures[node.name]

        try:
            drive(run, submit, stage=stage, targets=targets, only=only)
        except Exception:
            raise
        except BaseException:  # Ctrl-C, SIGTERM: leaving the block waits for running nodes
            end_running(run, futures)
            raise


def end_running(run: Run, futures: Mapping[str, Future]) -> None:
    """Cancel the run and wait for its running nodes, so that checkpoints are complete.

    A thread cannot be ended from outside, and Python waits for all of them before it exits. So if one has not ended
    after `END_WITHIN_S`, or the run is stopped again, this process exits at once: results are complete or absent in the
    store, as after kill -9.
    """

    def say(line: str) -> None:
        with suppress(OSError, ValueError):  # its reader has gone
            sys.stdout.flush()
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()

    run.cancel()
    running = set(futures)
    for name, future in futures.items():
        future.add_done_callback(lambda _, name=name: running.discard(name))
    until, why = time.monotonic() + END_WITHIN_S, f"which did not end within {END_WITHIN_S:g} s"
    try:
        if running:
            say(f"waiting at most {END_WITHIN_S:g} s for {', '.join(sorted(running))}; stop it again to end at once")
        while running and time.monotonic() < until:
            time.sleep(0.05)
    except BaseException:  # a second Ctrl-C or SIGTERM, which must not lead to where Python waits without limit
        why = "since it was stopped again"
    if running:
        try:
            say(f"stopped without waiting for {', '.join(sorted(running))}, {why}")
        finally:
            os._exit(TERMINATED)


def make_with_retries(run: Run, node: Node, *, retries: int = RETRIES, delay_s: float = FIRST_DELAY_S) -> NodeOutcome:
    """Make the node; retry a step after a transient error, as Prefect does with a task. Effects are not retried."""
    try:
        return make_safely(run, node)
    except TunegateError as error:
        # It may have happened before it failed.
        if node.kind == "effect" or not error.transient or not retries or run.cancelled.wait(delay_s):
            raise
    return make_with_retries(run, node, retries=retries - 1, delay_s=2 * delay_s)


def make_safely(run: Run, node: Node) -> NodeOutcome:
    """Make the node; errors name the step and contain no ticket text."""
    with safe_errors(node.name), named_disk_errors(run.store.root):
        import_for_step(node.info.libraries)
        return run.make(node)


@contextmanager
def safe_errors(step: str) -> Iterator[None]:
    """Replace the text of unexpected errors: it may quote a ticket, and Prefect stores it."""
    try:
        yield
    except RunEndedError:
        raise
    except TunegateError as error:
        if "--debug" not in sys.argv:  # its cause may quote a ticket as well, and Prefect logs whole tracebacks
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
    """Make the step again from scratch; its result exists only during the block."""
    run.start(node)
    with tempfile.TemporaryDirectory(prefix="tunegate-repeat-") as scratch:

        def produce(out: Path) -> Artifact:
            return run.call(node, out=out, scratch=Path(scratch))

        with run.store.make_temporarily(node.returns, produce) as artifact:
            yield artifact
