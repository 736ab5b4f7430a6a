"""The outcome of each node of a run: left out, reused, made, tolerated, failed, retried."""

import socket
from pathlib import Path

import pytest

from flows.graph.execute import Run, RunEndedError, make_with_retries, repeat, run_plainly, safe_errors
from flows.graph.graph import Graph
from flows.graph.store import Store
from schemas.artifacts import Artifact
from schemas.errors import DataError, ServiceError, StorageError, TrainingError, TunegateError
from tasks.progress import Progress
from tasks.step import BY_RUNNER, as_step
from tests.support.graph_steps import Notes, copy, results, run_all, text_of, write


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "home")


@pytest.fixture
def graph():
    return Graph()


@pytest.fixture
def ran():
    return []


# --- results -------------------------------------------------------------------------------------------------------


def test_a_result_has_a_key_a_time_and_a_location(graph, store, ran):
    a = graph.add(write, text="a", ran=ran)
    run = run_all(graph, store)
    first = run.outcome(a)
    assert (first.reused, first.skipped) == (False, "")
    assert first.seconds > 0
    assert first.result.root == store.place("write", first.key)
    assert run.result(a) == run.find(a) == first.result
    again = run_all(graph, store).outcome(a)
    assert (again.reused, again.seconds, again.result, again.key) == (True, 0.0, first.result, first.key)


def test_reading_a_result_before_the_run_or_of_a_node_left_out_fails(graph, store, ran):
    a = graph.add(write, text="a", ran=ran)
    with graph.unless(lambda: "no use"):
        b = graph.named("b").add(write, text="b", ran=ran)
    run = Run(graph, store)
    with pytest.raises(LookupError, match="'write' has not run"):
        run.result(a)
    assert run.find(a) is None
    run_plainly(run)
    with pytest.raises(LookupError, match="'b' was left out: no use"):
        run.result(b)
    assert (run.find(b), run.find(None), run.find(run.result(a))) == (None, None, run.result(a))


def test_an_interrupted_run_is_completed_without_making_anything_twice(store, tmp_path, ran):
    def graph(path):
        graph = Graph()
        a = graph.named("a").add(write, text="a", ran=ran)
        b = graph.named("b").add(reads, x=a, path=path)
        graph.named("c").add(copy, x=b, ran=ran)
        return graph

    with pytest.raises(TunegateError, match="TG0001"):
        run_all(graph(tmp_path / "absent"), store)
    assert ran == ["a"]
    (tmp_path / "absent").write_text("there now")
    done = results(run_all(graph(tmp_path / "absent"), store))
    assert text_of(done["c"]) == "there now"
    assert ran == ["a", "copy"]


@as_step("reads", context=("path",))
def reads(out: Path, *, x: Artifact, path: Path) -> Artifact:
    (out / "text").write_bytes(path.read_bytes())
    return Artifact(root=out)


def test_a_damaged_result_is_made_again_before_its_consumers(store, ran):
    def graph():
        graph = Graph()
        graph.add(copy, x=graph.add(write, text="a", ran=ran), ran=ran)
        return graph

    first = results(run_all(graph(), store))
    (first["write"].root / "text").write_text("b")  # same length
    run = run_all(graph(), store)
    assert ran == ["a", "copy", "a"]
    assert results(run) == first
    assert [outcome.reused for outcome in run.outcomes.values()] == [False, True]


def test_mistakes_in_a_step_are_reported(graph, store, tmp_path, ran):
    graph.named("raw").add(write, text="a", x=Artifact(root=tmp_path), ran=ran)
    with pytest.raises(ValueError, match="raw: input x has no digest; only stored results can be inputs"):
        Run(graph, store).make(graph.nodes["raw"])
    graph.add(forgets)
    with pytest.raises(TypeError, match="must return Artifact"):
        Run(graph, store).make(graph.nodes["forgets"])


@as_step("forgets")
def forgets(out: Path) -> Artifact:
    """A step that forgets its result."""
    return None


def test_scratch_and_progress_are_passed_to_steps_that_take_them(graph, store):
    notes = Notes()
    graph.add(long_one)
    run_all(graph, store, observer=notes)
    assert notes.events == [
        ("started", "long"), ("progressed", "long", "1/2 rows {'loss': 0.5}"), ("ended", "long", "made"),
    ]  # fmt: skip


@as_step("long")
def long_one(out: Path, *, scratch: Path = BY_RUNNER, progress: Progress = BY_RUNNER) -> Artifact:
    (scratch / "half").write_text("x")
    progress(1, 2, "rows", loss=0.5)
    return Artifact(root=out)


def test_a_result_of_an_earlier_run_is_verified_before_use(store, ran):
    first = Graph()
    first.add(write, text="a", ran=ran)
    earlier = results(run_all(first, store))["write"]
    (earlier.root / "text").write_text("b")
    graph = Graph()
    graph.add(copy, x=earlier, ran=ran)
    with pytest.raises(StorageError, match="TG0510"):
        run_all(graph, store)
    assert ran == ["a"]


def test_repeating_a_step_starts_from_scratch_and_keeps_nothing(graph, store, tmp_path, ran, tree):
    a = graph.add(write, text="a", ran=ran)
    graph.add(copy, x=a, ran=ran)
    run = run_all(graph, store)
    before = tree(tmp_path / "home" / "store")
    with repeat(run, graph.nodes["copy"]) as again:
        assert again.digest == run.outcomes["copy"].result.digest
        assert again.root != run.outcomes["copy"].result.root
    assert not again.root.exists()
    assert ran == ["a", "copy", "copy"]
    assert tree(tmp_path / "home" / "store") == before


# --- left out ------------------------------------------------------------------------------------------------------


def unless_contains(text):
    """A condition that leaves a node out after a result that contains the text."""

    def why(*earlier):
        matches = [text_of(each) for each in earlier if each is not None and text in text_of(each)]
        return f"{matches[0]} is enough" if matches else None

    return why


def test_a_node_left_out_has_a_reason_and_so_do_nodes_that_need_it(graph, store, ran):
    notes = Notes()
    first = graph.named("first").add(write, text="1", ran=ran)
    with graph.unless(unless_contains("1"), first):
        second = graph.named("second").add(write, text="2", ran=ran)
        third = graph.named("third").add(copy, x=second, ran=ran)
    graph.named("needs it").add(copy, x=third, ran=ran)
    tolerant = graph.named("goes without").add(write, text="all:", x=third, several=(second, first, third), ran=ran)
    run = run_all(graph, store, observer=notes)
    skipped = {name: outcome.skipped for name, outcome in run.outcomes.items()}
    assert skipped == {
        "first": "", "second": "1 is enough", "third": "1 is enough", "needs it": "third was left out",
        "goes without": "",
    }  # fmt: skip
    assert text_of(run.result(tolerant)) == "all: 1"
    assert ran == ["1", "all:"]
    assert ("ended", "second", "1 is enough") in notes.events
    assert ("started", "second") not in notes.events


def test_a_condition_gets_none_for_a_node_left_out(graph, store, ran):
    calls = []

    def note(*earlier):
        calls.append(earlier)
        return "enough" if earlier else None

    first = graph.named("first").add(write, text="1", ran=ran)
    with graph.unless(lambda _: "none", first):
        second = graph.named("second").add(write, text="2", ran=ran)
    with graph.unless(note, first, second):
        graph.named("third").add(write, text="3", ran=ran)
    run = run_all(graph, store)
    assert calls[-1] == (run.result(first), None)
    assert run.outcomes["third"].skipped == "enough"


def test_a_step_without_an_optional_input_has_its_own_key(store, ran):
    def graph(why):
        graph = Graph()
        with graph.unless(lambda: why):
            a = graph.named("a").add(write, text="a", ran=ran)
        graph.named("b").add(write, text="b", x=a, ran=ran)
        return graph

    without, with_it = run_all(graph("no use"), store), run_all(graph(None), store)
    assert text_of(without.outcomes["b"].result) == "b"
    assert text_of(with_it.outcomes["b"].result) == "b a"
    assert without.outcomes["b"].key != with_it.outcomes["b"].key


# --- tolerated errors ----------------------------------------------------------------------------------------------


@as_step("train")
def train(out: Path, *, code: str) -> Artifact:
    raise TrainingError("loss is not finite", code=code)


def test_a_tolerated_error_leaves_the_node_out_and_the_others_run(graph, store, ran):
    notes = Notes()
    trained = graph.named("t1", tolerates=("TG0401",)).add(train, code="TG0401")
    scores = graph.named("s1").add(copy, x=trained, ran=ran)
    graph.named("all").add(write, text="all:", several=(trained, scores), ran=ran)
    run = run_all(graph, store, observer=notes)
    assert run.outcomes["t1"].skipped == "TG0401: loss is not finite"
    assert run.outcomes["s1"].skipped == "t1 was left out"
    assert text_of(run.outcomes["all"].result) == "all:"
    assert notes.of("failed") == [("failed", "t1", "TG0401")]
    assert ("ended", "t1", "TG0401: loss is not finite") in notes.events


# --- errors --------------------------------------------------------------------------------------------------------


@as_step("quotes")
def quotes(out: Path, *, kind: str) -> Artifact:
    errors = {"ours": DataError("row 3", code="TG0210"), "lost": ConnectionError("I am ann@example.org")}
    raise errors.get(kind, ValueError("I am ann@example.org")) from KeyError("ann@example.org")


@pytest.mark.parametrize(
    ("kind", "code", "message"),
    [
        ("ours", "TG0210", "row 3"),
        ("lost", "TG0704", "ConnectionError in step quotes"),
        ("unexpected", "TG0001", "internal error: ValueError in step quotes"),
    ],
)
def test_ticket_text_in_an_error_is_not_passed_on(graph, store, kind, code, message):
    graph.add(quotes, kind=kind)
    run = Run(graph, store)
    with pytest.raises(TunegateError) as caught:
        make_with_retries(run, graph.nodes["quotes"], retries=0)
    assert (caught.value.code, caught.value.message) == (code, message)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert "ann" not in str(caught.value)


def test_the_end_of_a_run_is_not_a_step_error():
    with pytest.raises(RunEndedError), safe_errors("train"):
        raise RunEndedError("the run was cancelled")


# --- retries -------------------------------------------------------------------------------------------------------


@as_step("ask", context=("port", "answers_at", "tries"))
def ask(out: Path, *, port: int, answers_at: int, tries: Path) -> Artifact:
    """A step that fails to connect until its `answers_at`th call."""
    _call(port, answers_at, tries)
    (out / "text").write_text("here")
    return Artifact(root=out)


def announce(run: object, *, port: int, answers_at: int, tries: Path) -> str:
    _call(port, answers_at, tries)
    return "announced"


def _call(port: int, answers_at: int, tries: Path) -> None:
    with tries.open("a") as file:
        file.write("x")
    if tries.stat().st_size < answers_at:
        socket.create_connection(("127.0.0.1", port), timeout=5)


@pytest.fixture
def calls(tmp_path):
    """A port of this machine without a listener, and a file that records tries."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return {"port": server.getsockname()[1], "tries": tmp_path / "tries"}


def test_a_lost_connection_is_retried_until_it_answers(graph, store, calls):
    graph.add(ask, answers_at=3, **calls)
    outcome = make_with_retries(Run(graph, store), graph.nodes["ask"], delay_s=0)
    assert text_of(outcome.result) == "here"
    assert calls["tries"].read_text() == "xxx"


def test_a_connection_that_stays_lost_ends_the_run_after_the_last_try(graph, store, calls):
    graph.add(ask, answers_at=99, **calls)
    with pytest.raises(ServiceError, match="TG0704"):
        make_with_retries(Run(graph, store), graph.nodes["ask"], retries=2, delay_s=0)
    assert calls["tries"].read_text() == "xxx", "the first try and two retries"


def test_a_permanent_error_is_not_retried(graph, store, tmp_path):
    graph.add(reads_wrong, tries=tmp_path / "tries")
    with pytest.raises(DataError, match="TG0210"):
        make_with_retries(Run(graph, store), graph.nodes["reads_wrong"], delay_s=0)
    assert (tmp_path / "tries").read_text() == "x"


@as_step("reads_wrong", context=("tries",))
def reads_wrong(out: Path, *, tries: Path) -> Artifact:
    with tries.open("a") as file:
        file.write("x")
    raise DataError("row 3", code="TG0210")


def test_a_cancelled_run_retries_nothing(graph, store, calls):
    graph.add(ask, answers_at=99, **calls)
    run = Run(graph, store)
    run.cancel()
    with pytest.raises(ServiceError):
        make_with_retries(run, graph.nodes["ask"], delay_s=600)
    assert calls["tries"].read_text() == "x"


# --- effects ----------------------------------------------------------------------------------------------------------


def note(live: list[str], *, data: Artifact, word: str) -> str:
    live.append(f"{word} {text_of(data)}")
    return word.upper()


def report(live: list[str], *, word: str | None) -> None:
    live.append(f"report {word}")


def test_an_act_runs_once_in_every_run_and_passes_its_result_on(store, ran):
    for _ in range(2):
        graph, live = Graph(), []
        a = graph.add(write, text="a", ran=ran)
        noted = graph.effect(note, data=a, word="noted")
        graph.effect(report, word=noted)
        run = Run(graph, store, live=live)
        run_plainly(run)
        assert live == ["noted a", "report NOTED"]
        assert run.result(noted) == "NOTED"
        assert run.outcome(noted).key == ""
    assert ran == ["a"]


def test_a_consumer_of_an_act_left_out_gets_none(store, ran):
    graph, live = Graph(), []
    a = graph.add(write, text="a", ran=ran)
    with graph.unless(lambda _: "not wanted", a):
        noted = graph.effect(note, data=a, word="noted")
    graph.effect(report, word=noted)
    run_plainly(Run(graph, store, live=live))
    assert live == ["report None"]


def test_an_act_that_is_done_does_not_run_again_in_the_rest_of_the_run(store, ran):
    """The first attempt may fail before the act's end is noted, like Prefect without its server."""
    graph, live = Graph(), []
    graph.effect(note, data=graph.add(write, text="a", ran=ran), word="noted")
    run = Run(graph, store, live=live)
    run.end(graph.nodes["write"], run.make(graph.nodes["write"]))
    run.make(graph.nodes["note"])
    run_plainly(run)
    assert live == ["noted a"]
    assert run.outcomes["note"].result == "NOTED"


def test_a_failed_act_is_not_retried(graph, store, calls):
    """It may have changed the world before it failed."""
    graph.effect(announce, answers_at=2, **calls)
    with pytest.raises(ServiceError, match="TG0704"):
        make_with_retries(Run(graph, store), graph.nodes["announce"], delay_s=0)
    assert calls["tries"].read_text() == "x"


# --- expand ---------------------------------------------------------------------------------------------------------


def longest(graph: Graph, *, texts: tuple[Artifact, ...]) -> Artifact:
    """An earlier node, chosen by the results of all of them."""
    return max(filter(graph.find, texts), key=lambda handle: len(text_of(graph.read(handle))))


def as_many(graph: Graph, *, start: Artifact, ran: list[str]) -> Artifact:
    """One node for each letter in the result."""
    for place in range(len(text_of(graph.read(start)))):
        start = graph.named("letter", str(place)).add(write, text=str(place), x=start, ran=ran)
    return start


def test_a_growing_node_adds_nodes_that_depend_on_results(graph, store, ran):
    notes = Notes()
    start = graph.named("start").add(write, text="abc", ran=ran)
    grown = graph.named("grown").expand(as_many, start=start, ran=ran)
    after = graph.add(copy, x=grown, ran=ran)
    run = run_all(graph, store, observer=notes)
    assert text_of(run.result(after)) == "2 1 0 abc"
    assert list(run.outcomes) == ["start", "letter · 0", "letter · 1", "letter · 2", "copy"]
    assert graph.edges() == [
        ("start", "letter · 0"), ("letter · 0", "letter · 1"), ("letter · 1", "letter · 2"), ("letter · 2", "copy"),
    ]  # fmt: skip
    assert run.result(grown) == run.outcomes["letter · 2"].result
    assert notes.of("became") == []


def test_a_growing_node_that_becomes_an_earlier_one_has_that_result_under_another_name(graph, store, ran):
    notes = Notes()
    rungs = tuple(graph.named("rung", text).add(write, text=text, ran=ran) for text in ("a", "ccc", "bb"))
    with graph.unless(lambda: "no use"):
        rungs = (*rungs, graph.named("rung", "longest").add(write, text="dddddd", ran=ran))
    best = graph.named("the best").expand(longest, texts=rungs)
    by_grown = graph.named("by grown").add(copy, x=best, ran=ran)
    by_node = graph.named("by node").add(copy, x=rungs[1], ran=ran)
    run = run_all(graph, store, observer=notes)
    assert run.result(best) == run.result(rungs[1])
    assert run.outcome(by_grown).key == run.outcome(by_node).key
    assert notes.of("became") == [("became", "the best", "rung · ccc")]
    assert "the best" not in run.outcomes
    assert ("rung · ccc", "by grown") in graph.edges()


def test_a_growing_node_is_left_out_like_any_other(graph, store, ran):
    start = graph.named("start").add(write, text="abc", ran=ran)
    with graph.unless(lambda _: "no use", start):
        grown = graph.named("grown").expand(as_many, start=start, ran=ran)
    graph.add(copy, x=grown, ran=ran)
    run = run_all(graph, store)
    assert {name: outcome.skipped for name, outcome in run.outcomes.items()} == {
        "start": "", "grown": "no use", "copy": "grown was left out",
    }  # fmt: skip
    assert ran == ["abc"]


def test_growing_reads_only_its_own_inputs(graph, store, ran):
    start = graph.named("start").add(write, text="abc", ran=ran)
    graph.named("grown").expand(reads_elsewhere, start=start, later=[])
    with pytest.raises(LookupError, match=r"'write' has no result: this graph is not being run"):
        run_all(graph, store)


def reads_elsewhere(graph: Graph, *, start: Artifact, later: list[str]) -> Artifact:
    there = Graph()
    return there.read(there.add(write, text="x", ran=later))


# --- the guard -----------------------------------------------------------------------------------------------------


@as_step("counted", context=("ran",))
def counted(out: Path, *, text: str, ran: list[str], x: Artifact | None = None, limit: int = BY_RUNNER) -> Artifact:
    ran.append(f"{text} with {limit}")
    (out / "text").write_text(text)
    return Artifact(root=out)


class AtMost:
    """A guard that limits the total number of letters in the results."""

    def __init__(self, most):
        self.most, self.checked = most, []

    def arguments(self, node, before):
        return {"limit": self.most - len("".join(map(text_of, before)))} if node.takes("limit") else {}

    def check(self, node, before, result):
        texts = [text_of(each) for each in (*before, result)]
        self.checked.append((node.name, texts))
        if len("".join(texts)) > self.most:
            raise StorageError(f"{texts} are too many", code="TG0501")


def guarded(ran):
    """`c` depends on `a`; `b` runs in parallel; `d` is in a later stage."""
    graph = Graph()
    with graph.stage("one"):
        a = graph.named("a").add(write, text="a", ran=ran)
        graph.named("b").add(write, text="bb", ran=ran)
        graph.named("c").add(counted, text="cccc", x=a, ran=ran)
        with graph.unless(lambda: "no use"):
            graph.named("left out").add(write, text="z", ran=ran)
    with graph.stage("two"):
        graph.named("d").add(counted, text="d", ran=ran)
        graph.effect(report, word="act")
    return graph


def run_stages(graph, store, guard):
    run = Run(graph, store, guard=guard, live=[])
    for stage in graph.stages():
        run_plainly(run, stage=stage)
    return run


def test_a_guard_sees_a_nodes_dependencies_and_earlier_stages_but_not_parallel_nodes(store, ran):
    guard = AtMost(99)
    run_stages(guarded(ran), store, guard)
    assert sorted(guard.checked) == [
        ("a", ["a"]), ("b", ["bb"]), ("c", ["a", "cccc"]), ("d", ["a", "bb", "cccc", "d"]),
    ]  # fmt: skip
    assert "cccc with 98" in ran
    assert "d with 92" in ran


def test_a_guard_applies_to_reused_results_and_is_not_part_of_a_key(store, ran):
    first = run_stages(guarded(ran), store, AtMost(99))
    n_ran = len(ran)
    assert results(run_stages(guarded(ran), store, AtMost(8))) == results(first)
    with pytest.raises(StorageError, match=r"\['a', 'bb', 'cccc', 'd'\] are too many"):
        run_stages(guarded(ran), store, AtMost(7))
    with pytest.raises(StorageError, match=r"\['a', 'cccc'\] are too many"):
        run_stages(guarded(ran), store, AtMost(4))
    assert len(ran) == n_ran


def test_a_result_that_a_guard_refuses_is_kept_for_the_next_run(store, ran):
    with pytest.raises(StorageError, match="too many"):
        run_stages(guarded(ran), store, AtMost(4))
    run = run_stages(guarded(ran), store, AtMost(99))
    assert run.outcomes["c"].reused


def test_a_kept_result_is_reused_under_its_own_key_and_its_function_is_not_called(store, ran):
    graph = Graph()
    a = graph.add(write, text="a", ran=ran)
    run = run_all(graph, store)
    first, again = run.outcome(a), Graph()
    kept = again.named("before").keep(write, first.result)
    b = again.add(copy, x=kept, ran=ran)
    ran.clear()
    rerun = run_all(again, store)
    outcome = rerun.outcome(kept)
    assert (outcome.reused, outcome.key, outcome.result) == (True, first.key, first.result)
    assert text_of(rerun.result(b)) == "a"
    assert ran == ["copy"]
    (first.result.root / "text").write_text("altered")
    with pytest.raises(StorageError, match="TG0510"):
        run_all(_keeping(first.result), store)


def _keeping(result):
    graph = Graph()
    graph.named("before").keep(write, result)
    return graph
