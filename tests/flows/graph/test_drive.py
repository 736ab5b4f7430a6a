"""When nodes may start: parents, resources, the graph's order; and how a run ends early."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest

from flows.graph.budget import Times, times
from flows.graph.execute import Observer, Run, RunEndedError, budget_of_machine, drive, needs, run_plainly
from flows.graph.graph import Graph
from flows.graph.store import Store
from flows.run.open_run import RunObserver
from schemas.artifacts import Artifact
from schemas.errors import DataError, TrainingError
from tasks.progress import Progress
from tasks.step import BY_RUNNER, as_step
from tests.support.graph_steps import Notes, copy, results, text_of, write

Do = Callable[[], object]
WAIT_S = 30.0
"""Longest wait of a test, in seconds; normally there is none."""


class Clock:
    """When each step ran, and how many ran at the same time."""

    def __init__(self) -> None:
        self.began: dict[str, float] = {}
        self.ended: dict[str, float] = {}

    def overlap(self, one: str, two: str) -> bool:
        return self.began[one] < self.ended[two] and self.began[two] < self.ended[one]

    def most(self, *names: str) -> int:
        """The largest number of these that ran at the same time."""
        return max(sum(self.began[each] <= self.began[name] < self.ended[each] for each in names) for name in names)

    @property
    def seconds(self) -> float:
        return max(self.ended.values()) - min(self.began.values())


def nothing() -> None:
    """Do nothing."""


def _timed(out: Path, name: str, clock: Clock, do: Do) -> Artifact:
    clock.began[name] = time.monotonic()
    do()
    (out / "text").write_text(name)
    clock.ended[name] = time.monotonic()
    return Artifact(root=out)


@as_step("light", context=("clock", "do"))
def light(out: Path, *, name: str, clock: Clock, do: Do = nothing, inputs: tuple[Artifact, ...] = ()) -> Artifact:
    return _timed(out, name, clock, do)


@as_step("heavy", context=("clock", "do"), heavy=True)
def heavy(out: Path, *, name: str, clock: Clock, do: Do = nothing, inputs: tuple[Artifact, ...] = ()) -> Artifact:
    return _timed(out, name, clock, do)


class Adder:
    """Adds timed steps by their names."""

    def __init__(self) -> None:
        self.graph, self.clock = Graph(), Clock()
        self.handles: dict[str, Artifact] = {}

    def add(self, name, function=light, *, do=nothing, after=(), tolerates=()):
        inputs = tuple(self.handles[each] for each in after)
        named = self.graph.named(name, tolerates=tolerates)
        self.handles[name] = named.add(function, name=name, clock=self.clock, do=do, inputs=inputs)
        return self.handles[name]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "home")


@pytest.fixture
def steps():
    return Adder()


def meet(n):
    """A barrier for `n` steps, which must therefore run at the same time."""
    barrier = threading.Barrier(n)
    return lambda: barrier.wait(WAIT_S)


def until(event):
    def wait():
        assert event.wait(WAIT_S)

    return wait


def pause(seconds):
    return lambda: time.sleep(seconds)


# --- resources -----------------------------------------------------------------------------------------------------


def test_a_light_step_runs_in_parallel_with_a_heavy_one_but_two_heavy_ones_do_not(steps, store):
    together = meet(2)
    steps.add("train", heavy, do=together)
    steps.add("answers", heavy, do=pause(0.05))
    steps.add("card", do=together)
    run_plainly(Run(steps.graph, store, budget={"cpu": 2, "heavy": 1}))
    assert steps.clock.overlap("train", "card")
    assert not steps.clock.overlap("train", "answers")


def test_light_steps_run_in_parallel_up_to_the_number_of_cores(steps, store):
    names = tuple(f"light {number}" for number in range(6))
    together = meet(3)
    for name in names:
        steps.add(name, do=together)
    run_plainly(Run(steps.graph, store, budget={"cpu": 3, "heavy": 1}))
    assert steps.clock.most(*names) == 3


def test_a_heavy_step_leaves_one_core_for_light_ones(steps, store):
    together = meet(2)
    steps.add("train", heavy, do=together)
    steps.add("light 1", do=together)
    steps.add("light 2", do=nothing)
    run_plainly(Run(steps.graph, store, budget={"cpu": 4, "heavy": 1}))
    assert steps.clock.began["light 2"] >= steps.clock.ended["light 1"]
    node = steps.graph.nodes
    assert needs(node["train"], {"cpu": 4}) == {"heavy": 1, "cpu": 3, "gpu": 0}
    assert needs(node["train"], {"cpu": 1, "gpu": 2}) == {"heavy": 1, "cpu": 1, "gpu": 2}
    assert needs(node["light 1"], {"cpu": 4, "gpu": 2}) == {"cpu": 1}


def test_a_machine_has_room_for_one_heavy_step_and_a_light_one():
    budget = budget_of_machine()
    assert budget["heavy"] == 1
    assert budget["cpu"] >= 2
    assert budget["memory_gb"] > 0.5


@as_step("big", context=("clock", "do"), memory_gb=3.0)
def big(out: Path, *, name: str, clock: Clock, do: Do = nothing, inputs: tuple[Artifact, ...] = ()) -> Artifact:
    return _timed(out, name, clock, do)


def test_steps_run_in_parallel_as_far_as_memory_allows(steps, store):
    together = meet(2)
    steps.add("big 1", big, do=together)
    steps.add("big 2", big)
    steps.add("light", do=together)
    run_plainly(Run(steps.graph, store, budget={"cpu": 8, "heavy": 1, "memory_gb": 4.0}))
    assert not steps.clock.overlap("big 1", "big 2")
    assert steps.clock.overlap("big 1", "light")


def test_a_step_that_needs_more_memory_than_available_takes_all_of_it(steps, store):
    steps.add("light 1", do=pause(0.02))
    steps.add("big", big, do=pause(0.02))
    steps.add("light 2", do=pause(0.02))
    budget = {"cpu": 8, "heavy": 1, "memory_gb": 2.0}
    run_plainly(Run(steps.graph, store, budget=budget))
    assert needs(steps.graph.nodes["big"], budget)["memory_gb"] == 2.0
    assert steps.clock.most("light 1", "big") == steps.clock.most("big", "light 2") == 1


def test_a_step_that_needs_more_than_the_budget_is_refused(steps, store):
    steps.add("train", heavy)
    with pytest.raises(LookupError, match=r"train cannot start: it needs .*'heavy': 1.* of {'cpu': 2}"):
        run_plainly(Run(steps.graph, store, budget={"cpu": 2}))


def test_on_four_cores_the_critical_path_decides(steps, store):
    """A split, two chains of training and answers, nine light steps, 0.5 s each.

    7 s sequentially, 3 s on four cores, 1.5 s on the critical path."""
    steps.add("split", do=pause(0.5))
    heavy_ones = ("train 1", "train 2", "answers 1", "answers 2")
    for name, parent in zip(heavy_ones, ("split", "split", "train 1", "train 2"), strict=True):
        steps.add(name, heavy, do=pause(0.5), after=(parent,))
    light_ones = tuple(f"light {number}" for number in range(9))
    for place, name in enumerate(light_ones):
        steps.add(name, do=pause(0.5), after=("split",) if place < 3 else ())
    clock, budget = steps.clock, {"cpu": 4, "heavy": 1}
    assert times(steps.graph, dict.fromkeys(steps.graph.nodes, 0.5), budget) == Times(7.0, 3.0, 1.5)
    run_plainly(Run(steps.graph, store, budget=budget))
    # On any machine: faster than sequentially, and most light steps in parallel with another step.
    assert clock.seconds < sum(clock.ended[name] - clock.began[name] for name in clock.began)
    assert sum(any(clock.overlap(name, other) for other in ("split", *heavy_ones)) for name in light_ones) >= 6
    assert clock.most(*heavy_ones) == 1
    assert clock.most(*light_ones) <= 4
    for name, parent in zip(heavy_ones, ("split", "split", "train 1", "train 2"), strict=True):
        assert clock.began[name] >= clock.ended[parent]


def test_a_node_that_is_reused_or_left_out_takes_no_resources(steps, store):
    steps.add("a", heavy)
    run_plainly(Run(steps.graph, store))
    again, runs, ran = Adder(), threading.Event(), threading.Event()
    again.add("b", heavy, do=lambda: (runs.set(), until(ran)()))
    again.add("a", heavy)
    again.add("c", after=("a",), do=lambda: (until(runs)(), ran.set()))
    with again.graph.unless(lambda: "no use"):
        again.add("d", heavy)
    run = Run(again.graph, store, budget={"cpu": 2, "heavy": 1})
    run_plainly(run)
    assert run.outcomes["a"].reused
    assert again.clock.overlap("b", "c")


# --- order ---------------------------------------------------------------------------------------------------------


def in_driver_thread(run):
    """Make each node in the driver's thread, so that the order depends on nothing else."""

    def submit(node, outcome):
        future = Future()
        try:
            future.set_result(outcome or run.make(node))
        except Exception as error:
            future.set_exception(error)
        return future

    return submit


def test_of_several_nodes_that_could_start_the_first_in_the_graph_starts(steps, store):
    for name, after in (("c", ()), ("a", ()), ("d", ("a",)), ("b", ("c",))):
        steps.add(name, after=after)
    run = Run(steps.graph, store, budget={"cpu": 1, "heavy": 1})
    drive(run, in_driver_thread(run))
    assert list(steps.clock.began) == ["c", "a", "d", "b"]
    assert list(run.outcomes) == ["c", "a", "d", "b"]


def test_each_node_starts_after_its_inputs_have_ended(steps, store):
    for number in range(12):
        steps.add(f"s{number}", after=tuple(f"s{each}" for each in range(number) if not (number - each) % 3))
    run_plainly(Run(steps.graph, store, budget={"cpu": 8, "heavy": 1}))
    for parent, name in steps.graph.edges():
        assert steps.clock.ended[parent] <= steps.clock.began[name]


class InTurn:
    """Lets parallel steps end in a given order."""

    def __init__(self, names):
        self.may_end = {name: threading.Event() for name in names}
        self.may_end[names[0]].set()
        self.next = dict(zip(names, (*names[1:], None), strict=True))

    def wait(self, name):
        return until(self.may_end[name])

    def ended(self, name):
        following = self.next.get(name)
        if following is not None:
            self.may_end[following].set()


class OrderedObserver(RunObserver):
    """A run's observer that lets the next step end."""

    def __init__(self, context, turns):
        super().__init__(context)
        self.turns = turns

    def ended(self, node, outcome):
        super().ended(node, outcome)
        self.turns.ended(node.name)

    def failed(self, node, error):
        super().failed(node, error)
        self.turns.ended(node.name)


def ledger_rows(context):
    """The rows of the run's steps, sorted, without times."""
    rows = context.ledger.steps(context.run_id)
    return sorted((row.step, row.key, row.state, row.digest, row.error) for row in rows)


@pytest.mark.parametrize("order", [("a", "b", "c"), ("c", "b", "a"), ("b", "c", "a")])
def test_results_and_ledger_do_not_depend_on_the_order_of_execution(steps, run_context, order):
    turns = InTurn(order)

    def fail(name):
        def do():
            turns.wait(name)()
            raise TrainingError("loss is not finite", code="TG0401")

        return do

    steps.add("a", do=turns.wait("a"))
    steps.add("b", do=fail("b"), tolerates=("TG0401",))
    steps.add("c", do=turns.wait("c"))
    steps.add("after", after=("a", "b", "c"))
    run = Run(
        steps.graph, run_context.store, observer=OrderedObserver(run_context, turns), budget={"cpu": 3, "heavy": 1}
    )
    run_plainly(run)
    assert [name for name in run.outcomes if name != "after"] == list(order)
    direct, other = Adder(), run_context.settings.home / "other"
    for name in ("a", "c"):
        direct.add(name)
    direct.add("after", after=("a", "c"))
    expected = Run(direct.graph, Store(other))
    drive(expected, in_driver_thread(expected))
    assert {name: (each.digest, each.root.name) for name, each in results(run).items()} == {
        name: (each.digest, each.root.name) for name, each in results(expected).items()
    }
    done = [(name, out.key, "done", out.result.digest, "") for name, out in expected.outcomes.items()]
    assert ledger_rows(run_context) == sorted([*done, ("b", "", "failed", "", "TG0401: loss is not finite")])


def test_of_nodes_with_the_same_key_the_first_in_the_graph_makes_the_result(store):
    """The others reuse it, however many run in parallel: no thread waits for a result in progress."""
    graph, clock = Graph(), Clock()
    for number in range(3):
        graph.named("same", str(number)).add(light, name="same", clock=clock, do=pause(0.1))
    graph.named("other").add(light, name="other", clock=clock)
    notes = Notes()
    run_plainly(Run(graph, store, observer=notes, budget={"cpu": 4, "heavy": 1}))
    assert [each[1] for each in notes.of("started")] == ["same · 0", "other"]
    assert sorted(notes.of("ended")) == [
        ("ended", "other", "made"), ("ended", "same · 0", "made"),
        ("ended", "same · 1", "reused"), ("ended", "same · 2", "reused"),
    ]  # fmt: skip


# --- parts of a graph ----------------------------------------------------------------------------------------------


def test_a_stage_runs_alone_when_its_inputs_exist(steps, store):
    with steps.graph.stage("one"):
        steps.add("a")
    with steps.graph.stage("two"):
        steps.add("b", after=("a",))
    run = Run(steps.graph, store)
    run_plainly(run, stage="one")
    assert list(run.outcomes) == ["a"]
    run_plainly(run, stage="two")
    assert list(run.outcomes) == ["a", "b"]


def test_a_stage_whose_inputs_are_missing_is_refused(steps, store):
    with steps.graph.stage("one"):
        steps.add("a")
    with steps.graph.stage("two"):
        steps.add("b", after=("a",))
    with pytest.raises(LookupError, match="b cannot start: a has not run"):
        run_plainly(Run(steps.graph, store), stage="two")


def test_only_what_the_targets_need_runs(steps, store):
    a = steps.add("a")
    steps.add("b")
    c = steps.add("c", after=("a",))
    steps.add("d", after=("c",))
    grown = steps.graph.named("grown").expand(one_more, steps=steps, start=c)
    steps.add("after grown", after=("c",))
    run = Run(steps.graph, store)
    run_plainly(run, targets=(a,))
    assert list(run.outcomes) == ["a"]
    run_plainly(run, targets=(c, run.result(a)))  # an existing result needs nothing
    assert list(run.outcomes) == ["a", "c"]
    run_plainly(run, targets=(grown,))
    assert list(run.outcomes) == ["a", "c", "more", "grown"]


def one_more(graph: Graph, *, steps: Adder, start: Artifact) -> Artifact:
    steps.add("more", after=("c",))
    return steps.add("grown", after=("more",))


def test_a_condition_of_a_target_is_needed_too(steps, store):
    a = steps.add("a")
    with steps.graph.unless(lambda _: None, a):
        b = steps.add("b")
    run = Run(steps.graph, store)
    run_plainly(run, targets=(b,))
    assert list(run.outcomes) == ["a", "b"]


# --- errors --------------------------------------------------------------------------------------------------------


class Recorder(Notes):
    """Sets an event when a node fails."""

    def __init__(self):
        super().__init__()
        self.failure = threading.Event()

    def failed(self, node, error):
        super().failed(node, error)
        self.failure.set()


def raise_(error, *, after=nothing):
    def do():
        after()
        raise error

    return do


def test_after_an_error_nothing_new_starts_and_running_steps_are_kept(steps, store):
    recorder, running = Recorder(), threading.Event()
    steps.add("bad", do=raise_(DataError("row 3", code="TG0210"), after=until(running)))
    steps.add("slow", do=lambda: (running.set(), until(recorder.failure)()))
    steps.add("waits for a core")
    steps.add("after slow", after=("slow",))
    run = Run(steps.graph, store, observer=recorder, budget={"cpu": 2, "heavy": 1})
    with pytest.raises(DataError, match="TG0210"):
        run_plainly(run)
    assert set(steps.clock.began) == {"bad", "slow"}
    assert list(run.outcomes) == ["slow"]
    assert recorder.of("failed", "ended") == [("failed", "bad", "TG0210"), ("ended", "slow", "made")]
    again = Adder()
    again.add("slow")
    second = Run(again.graph, store)
    run_plainly(second)
    assert second.outcomes["slow"].reused


def test_the_first_of_several_errors_is_raised_and_each_is_reported(steps, store):
    recorder, running = Recorder(), meet(3)
    steps.add("bad", do=raise_(DataError("row 3", code="TG0210"), after=running))
    for name, tolerates in (("worse", ()), ("bearable", ("TG0401",))):
        error = TrainingError("nan", code="TG0401")
        steps.add(name, do=raise_(error, after=lambda: (running(), until(recorder.failure)())), tolerates=tolerates)
    run = Run(steps.graph, store, observer=recorder, budget={"cpu": 3, "heavy": 1})
    with pytest.raises(DataError, match="TG0210"):
        run_plainly(run)
    assert recorder.events.index(("failed", "bad", "TG0210")) == 3
    assert sorted(recorder.of("failed")) == [
        ("failed", "bad", "TG0210"), ("failed", "bearable", "TG0401"), ("failed", "worse", "TG0401"),
    ]  # fmt: skip
    assert list(run.outcomes) == ["bearable"]


def test_an_error_in_a_condition_or_in_growing_ends_the_run(steps, store):
    def why(_):
        raise DataError("cannot say", code="TG0210")

    a = steps.add("a")
    with steps.graph.unless(why, a):
        steps.add("b")
    steps.add("c", after=("a",))
    with pytest.raises(DataError, match="cannot say"):
        run_plainly(Run(steps.graph, store))
    assert set(steps.clock.began) == {"a"}
    growing = Adder()
    growing.graph.named("grown").expand(cannot, start=growing.add("a"))
    with pytest.raises(DataError, match="cannot grow"):
        run_plainly(Run(growing.graph, store))


def cannot(graph: Graph, *, start: Artifact) -> Artifact:
    raise DataError("cannot grow", code="TG0210")


def test_a_tolerated_error_in_a_condition_leaves_the_node_out_and_the_others_run(steps, store):
    def why(_):
        raise TrainingError("cannot say", code="TG0401")

    a = steps.add("a")
    with steps.graph.unless(why, a):
        steps.add("b", tolerates=("TG0401",))
    steps.add("c", after=("a",))
    run = Run(steps.graph, store)
    run_plainly(run)
    assert {name: outcome.skipped for name, outcome in run.outcomes.items()} == {
        "a": "", "b": "TG0401: cannot say", "c": "",
    }  # fmt: skip


def test_an_error_in_submitting_a_node_ends_the_run_and_keeps_results(steps, store):
    steps.add("a")
    steps.add("b")
    run = Run(steps.graph, store)
    submit_in_driver = in_driver_thread(run)

    def submit(node, outcome):
        if node.name == "b":
            raise ConnectionError("the server is gone")
        return submit_in_driver(node, outcome)

    with pytest.raises(ConnectionError, match="the server is gone"):
        drive(run, submit)
    assert list(run.outcomes) == ["a"]
    run_plainly(run)
    assert list(run.outcomes) == ["a", "b"]


# --- cancelling ----------------------------------------------------------------------------------------------------


@as_step("long", context=("ended",))
def long_one(out: Path, *, ended: list[str], progress: Progress = BY_RUNNER) -> Artifact:
    try:
        for done in range(3_000):
            progress(done, None, "steps")
            time.sleep(0.01)
    except BaseException as error:
        ended.append(type(error).__name__)
        raise
    raise AssertionError("it was not cancelled")


class CancelAtProgress(Notes):
    def __init__(self):
        super().__init__()
        self.run: Run | None = None

    def progressed(self, node, done, total, unit, figures):
        if done == 3:
            self.run.cancel()


def test_a_cancelled_run_starts_nothing_and_running_steps_end_at_their_next_report(store):
    graph, ended, notes = Graph(), [], CancelAtProgress()
    before = graph.named("before").add(write, text="a", ran=[])
    graph.add(long_one, ended=ended)
    graph.add(copy, x=before, ran=ended)
    run = notes.run = Run(graph, store, observer=notes, budget={"cpu": 1, "heavy": 1})
    with pytest.raises(RunEndedError, match="the run was cancelled"):
        run_plainly(run)
    assert ended == ["RunEndedError"]
    assert notes.of("failed") == []
    assert list(run.outcomes) == ["before"]
    assert text_of(run.outcomes["before"].result) == "a"


def test_a_run_cancelled_before_it_begins_starts_nothing(steps, store):
    steps.add("a")
    run = Run(steps.graph, store)
    run.cancel()
    with pytest.raises(RunEndedError):
        run_plainly(run)
    assert steps.clock.began == {}


def test_a_step_without_reports_ends_normally_and_is_kept(steps, store):
    class Cancels(Observer):
        def started(self, node):
            run.cancel()

    steps.add("a")
    steps.add("b")
    run = Run(steps.graph, store, observer=Cancels(), budget={"cpu": 1, "heavy": 1})
    with pytest.raises(RunEndedError):
        run_plainly(run)
    assert list(run.outcomes) == ["a"]


def test_an_interrupt_cancels_the_run_and_waits_for_running_steps(store):
    """Like Ctrl-C, which arrives in the driver's thread."""
    graph, ended = Graph(), []
    graph.add(long_one, ended=ended)

    class Interrupts(Observer):
        def ended(self, node, outcome):
            raise KeyboardInterrupt

    graph.add(write, text="a", ran=[])
    run = Run(graph, store, observer=Interrupts(), budget={"cpu": 2, "heavy": 1})
    with pytest.raises(KeyboardInterrupt):
        run_plainly(run)
    assert run.cancelled.is_set()
    assert ended == ["RunEndedError"]
