"""A stage on another machine: what is handed over, and how both sides check it.

The run's machine, which has the ledger, writes keys and digests into the shared folder, but no tickets and no
declaration; the worker has its own `pipelines.yaml` and refuses to work if declaration, code or libraries differ. What
needs the ledger stays with the run: the gate, which counts earlier verdicts, and all changes of ledger and registry.
"""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from flows.build import build, code_of
from flows.context.graph_context import GraphContext, limits_of, replies_of, trunks_of
from flows.context.ingest import landed_folder
from flows.context.previous_run import PreviousRun
from flows.context.request import STAGES
from flows.graph.execute import NodeOutcome, Run
from flows.graph.graph import Graph, Node
from flows.graph.keys import digest_of, installed
from flows.graph.store import Store
from flows.records.timings import TimingsObserver
from flows.registry.feedback import feedback_database
from flows.registry.state import RegistryState, StartingPoint
from flows.run.guarded_run import guarded_run
from flows.run.open_run import OpenRun
from flows.workspace.disk import private_folder
from flows.workspace.settings import Settings
from schemas.artifacts import Artifact, ChampionRef, CheckResults, CurationCard, DatasetRef, Splits
from schemas.errors import ConfigError, SecurityError, StorageError
from schemas.pipeline import DataPipeline, PipelineSpec
from schemas.verdicts import NOTHING_JUDGED, NOTHING_SEEN, JudgedItems, SeenItems
from tasks.monitor.feedback import FeedbackState
from tasks.release.registered import RegisteredModel
from tasks.sources.registry import fingerprint_source
from tasks.storage.files import sha256_file, write_json

FOLDER = "handover"
SHOWN = 8
"""Differences that an error names."""


class NodeEnd(BaseModel):
    """How a node ended: with a result, by its key and digest, or left out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: str = ""
    key: str = ""
    digest: str = ""
    skipped: str = ""
    seconds: float = 0.0


class Handover(BaseModel):
    """Everything that a worker needs to run a stage of a run; no ticket text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str
    pipeline: str
    stage: str
    ledger: str
    """Hash of the ledger's last line when this was written."""
    config: str
    """Digest of the declaration."""
    source: str
    """The source's fingerprint."""
    code: dict[str, str]
    libraries: dict[str, str]
    ended: dict[str, NodeEnd]
    """Nodes by name, of earlier stages and those of this one that are done already."""
    previous_run: dict[str, NodeEnd]
    """`split`, `card` and `checks` of the last complete run, if there are any."""
    champion: dict[str, Any] | None
    anchor: dict[str, Any] | None
    learned: dict[str, Any] | None = None
    """The examples of the champion that the training continues from."""
    feedback_rows: int | None
    feedback_digest: str
    as_of: str | None = None
    seen: SeenItems = NOTHING_SEEN
    worn: JudgedItems = NOTHING_JUDGED
    labels: dict[str, bool] = {}
    registered: str | None = None
    """Where MLflow keeps the model that is judged, without the server's address and its login: the run fetches it."""

    @property
    def work(self) -> str:
        """Digest of the work, whichever run it is for: two runs must not do the same work twice."""
        return digest_of(self.model_dump(mode="json", exclude={"run_id", "ledger"}))


class Results(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    handover: str
    """sha256 of the handover's file."""
    made: dict[str, NodeEnd]


def runs_on_worker(graph: Graph, node: Node) -> bool:
    """Return whether a worker runs the node: it changes nothing, and need not stay with the run.

    What both needs and serves a node of the worker cannot stay: the base model of a ladder's later rung, say.
    """
    if node.kind not in ("step", "expand"):
        return False
    if not node.scope.stays:
        return True
    others = {each for each in graph.of_stage(node.stage) if each.kind != "effect" and not each.scope.stays}
    return bool(graph.ancestors(node) & others) and node in graph.ancestors(*others)


def made_first(graph: Graph, stage: str) -> frozenset[str]:
    """Return the nodes of a placed stage that stay with the run and need nothing that the worker makes, by name."""
    nodes = graph.of_stage(stage)
    workers = {node for node in nodes if runs_on_worker(graph, node)}
    return frozenset(
        node.name for node in nodes if node.scope.stays and node not in workers and not graph.ancestors(node) & workers
    )


def first_missing(opened: OpenRun, stage: str) -> str | None:
    """Return the first node that a worker has to make; None if all results are in the store and no worker is needed."""
    run = opened.run
    known = dict(run.outcomes)
    try:
        for node in run.nodes(stage):
            if node.kind == "effect" or node.name in run.outcomes:
                continue
            if not runs_on_worker(run.graph, node) and (node.kind == "expand" or not run.knows_inputs(node)):
                continue
            if not run.knows_inputs(node):
                return node.name
            if node.kind == "expand":
                run.expand(node)
                continue
            outcome = run.decide(node, deep=False)
            if outcome is not None:
                run.outcomes[node.name] = outcome
            elif runs_on_worker(run.graph, node):
                return node.name
    finally:
        run.outcomes.clear()
        run.outcomes.update(known)
    return None


# --- the ledger's side ---------------------------------------------------------------------------------------------


def hand_over(opened: OpenRun, stage: str) -> tuple[Handover, str]:
    """Write what a worker needs into the shared folder; return it and the sha256 of its file."""
    context, graph = opened.context, opened.pipeline.graph
    registry_state, previous_run = context.registry_state, opened.graph_context.previous_run
    root, feedback = context.store.root, opened.graph_context.feedback
    until = set(STAGES[: STAGES.index(stage) + 1])
    handover = Handover(
        run_id=context.run_id,
        pipeline=context.spec.name,
        stage=stage,
        ledger=context.ledger.last_hash(),
        config=config_digest(context.spec),
        source=opened.graph_context.fingerprint,
        code=_code(graph, stage),
        libraries=_libraries(graph, stage),
        ended={
            node.name: _ended(node.folder, opened.run.outcomes[node.name]).model_copy(update={"seconds": 0.0})
            for node in graph.nodes.values()  # seconds are not part of the work's digest
            if node.stage in until and node.name in opened.run.outcomes and node.kind == "step"
        },
        previous_run={
            name: NodeEnd(folder=name, key=found.root.name, digest=found.digest)
            for name, found in vars(previous_run).items()
            if found is not None
        },
        champion=_portable(registry_state.champion, root),
        anchor=_portable(registry_state.anchor, root),
        learned=None if registry_state.start is None else _portable_examples(registry_state.start.learned, root),
        feedback_rows=None if feedback is None else feedback.last,
        feedback_digest="" if feedback is None else feedback.digest,
        as_of=context.request.as_of,
        registered=None if opened.graph_context.registered is None else opened.graph_context.registered.source,
        seen=opened.graph_context.registry_state.seen,
        worn=opened.graph_context.registry_state.worn,
        labels=dict(opened.graph_context.labels),
    )
    path = _place(root, context.run_id, stage)
    write_json(path, handover.model_dump(mode="json"))
    return handover, sha256_file(path)


def take_back(opened: OpenRun, stage: str, *, run_id: str, handover: str) -> dict[str, NodeEnd]:
    """Return the worker's results by node; the run then finds them in the store.

    Args:
        run_id: The run that the worker worked for: this one, or one that died after handing over the same work.
        handover: sha256 of that handover's file.

    Raises:
        SecurityError: TG0840, they belong to another handover, or to one that this ledger never wrote.
        StorageError: TG0549, a result is missing.
    """
    root = opened.context.store.root
    given, path = _place(root, run_id, stage), _place(root, run_id, stage, done=True)
    results = _read(path, Results)
    is_ours = given.is_file() and sha256_file(given) == handover == results.handover
    if not is_ours or not opened.context.ledger.knows_hash(_read(given, Handover).ledger):
        raise SecurityError(
            f"the results of stage {stage} belong to another handover", code="TG0840", where=str(path),
            hint="run again",
        )  # fmt: skip
    opened.run.elsewhere |= {name: ended.seconds for name, ended in results.made.items()}
    name = first_missing(opened, stage)
    if name is not None:  # it is not made here instead: a placed stage runs only where it is placed
        raise StorageError(
            f"the worker made no result of {name} that this run can use", code="TG0549", where=f"place.{stage}",
            hint="the worker may have another secret (a key for pseudonyms), or the source has changed; see its log",
        )  # fmt: skip
    made: dict[str, NodeEnd] = results.made
    return made


def check_taken(opened: OpenRun, made: Mapping[str, NodeEnd]) -> None:
    """Check that every result is the one that the worker made.

    Raises:
        StorageError: TG0549, one is not.
    """
    for name, ended in made.items():
        outcome = opened.run.outcomes.get(name)
        if outcome is None or outcome.skipped or outcome.result.digest != ended.digest:
            raise StorageError(
                f"the result of {name} is not the one that the worker made", code="TG0549",
                where=str(opened.context.store.place(ended.folder, ended.key)), hint="run again",
            )  # fmt: skip


def forget_handover(opened: OpenRun, stage: str, *, run_id: str) -> None:
    """Remove the handovers of this run and of a dead one, once this run has the worker's results."""
    for run in (opened.context.run_id, run_id):
        for done in (False, True):
            _place(opened.context.store.root, run, stage, done=done).unlink(missing_ok=True)


# --- the worker's side ---------------------------------------------------------------------------------------------


def open_placed(spec: DataPipeline, settings: Settings, *, root: Path, run_id: str, stage: str, handover: str) -> Run:
    """Open the run on this machine, with the results of earlier stages.

    Args:
        root: Folder of this machine's pipelines.yaml.
        handover: sha256 of the handover's file, from the run's machine.

    Raises:
        ConfigError: TG0119, `TUNEGATE_STORE` is not set, or declaration, code or libraries differ; the message says
            which.
        SecurityError: TG0840, the handover is not the one that the run wrote.
        StorageError: TG0549, an earlier result has changed.
    """
    if settings.shared_store is None:
        raise ConfigError(
            "a placed stage needs the shared folder", code="TG0119", where="TUNEGATE_STORE",
            hint="export TUNEGATE_STORE=FOLDER: the TUNEGATE_HOME of the machine that starts the run, as mounted here",
        )  # fmt: skip
    store = Store(settings.shared_store)
    path = _place(store.root, run_id, stage)
    if not path.is_file() or sha256_file(path) != handover:
        raise SecurityError(
            f"the handover of run {run_id} is not the one that the run wrote", code="TG0840", where=str(path),
            hint="only a run starts this deployment, with the handover that it wrote",
        )  # fmt: skip
    given = _read(path, Handover)
    if config_digest(spec) != given.config:
        raise _differs(given, [f"the declaration of {spec.name}"])
    context = _context(spec, settings, given, store, root=root)
    observer = TimingsObserver(replace(settings, home=store.root))
    run = guarded_run(build(spec, context).graph, spec, store, settings, observer=observer)
    _restore(run, given, store)
    _check_same(given, run.graph)
    return run


def give_back(run: Run, stage: str, run_id: str, handover: str) -> None:
    """Write which results were made, for the run's machine."""
    made = {
        node.name: _ended(node.folder, run.outcomes[node.name])
        for node in run.graph.of_stage(stage)
        if node.kind == "step" and node.name in run.outcomes and not run.outcomes[node.name].reused
    }
    made = {name: ended for name, ended in made.items() if not ended.skipped}
    write_json(
        _place(run.store.root, run_id, stage, done=True), Results(handover=handover, made=made).model_dump(mode="json")
    )


def _context(spec: DataPipeline, settings: Settings, given: Handover, store: Store, *, root: Path) -> GraphContext:
    def previous(name: str, returns: type[Any]) -> Any:
        ended = given.previous_run.get(name)
        return None if ended is None else _result(store, ended, returns)

    landed = landed_folder(replace(settings, home=store.root), spec.name)
    if given.stage == "curate":
        here = fingerprint_source(spec.source, root=root, landed=landed)
        if here != given.source:
            raise ConfigError(
                "the source has other tickets here", code="TG0119", where=f"{spec.name}.source",
                hint="the worker needs the same files, at the same path relative to its pipelines.yaml",
            )  # fmt: skip
    feedback = None if given.feedback_rows is None else FeedbackState(given.feedback_rows, given.feedback_digest)
    context = GraphContext(
        fingerprint=given.source,
        root=root,
        cache=settings.cache,
        landed=landed,
        previous_run=PreviousRun(
            split=previous("split", Splits),
            card=previous("card", CurationCard),
            checks=previous("checks", CheckResults),
        ),
        registry_state=_registry_state(given, store.root),
        feedback=feedback,
        as_of=given.as_of,
        labels=given.labels,
        registered=None if given.registered is None else RegisteredModel("", "", given.registered, uri=""),
    )
    if not isinstance(spec, PipelineSpec):
        return context
    return replace(
        context,
        feedback_database=feedback_database(store.root, spec.registry.name),
        trunks=trunks_of(store.root, spec.name),
        replies=replies_of(store.root),
        limits=limits_of(spec.train),
    )


def _restore(run: Run, given: Handover, store: Store) -> None:
    """Give the graph the existing results, and add the nodes that depend on results of earlier stages."""
    before = set(STAGES[: STAGES.index(given.stage)])
    for node in run.nodes():
        if node.kind == "expand" and node.stage in before:
            run.expand(node)
            continue
        ended = given.ended.get(node.name)
        if ended is None:
            continue
        if ended.skipped:
            run.outcomes[node.name] = NodeOutcome(skipped=ended.skipped)
        else:
            run.outcomes[node.name] = NodeOutcome(_result(store, ended, node.returns), ended.key, reused=True)


def _result(store: Store, ended: NodeEnd, returns: type[Any]) -> Artifact:
    found: Artifact | None = store.whole(ended.folder, ended.key, returns, deep=True)
    if found is None or found.digest != ended.digest:
        raise StorageError(
            f"a result of {ended.folder} is not the one that was handed over", code="TG0549",
            where=str(store.place(ended.folder, ended.key)), hint="is TUNEGATE_STORE the folder of that run?",
        )  # fmt: skip
    return found


def _check_same(given: Handover, graph: Graph) -> None:
    """Refuse to work if this machine would make other bytes than the run's machine."""
    differs: list[str] = []
    here, there = _code(graph, given.stage), given.code
    differs += [f"code of {name}" for name in sorted(here.keys() | there.keys()) if here.get(name) != there.get(name)]
    here, there = _libraries(graph, given.stage), given.libraries
    differs += [
        f"{name} {there.get(name, 'absent')} there, {here.get(name, 'absent')} here"
        for name in sorted(here.keys() | there.keys())
        if here.get(name) != there.get(name)
    ]
    if differs:
        raise _differs(given, differs)


def _differs(given: Handover, what: list[str]) -> ConfigError:
    shown = "; ".join(what[:SHOWN]) + (f"; and {len(what) - SHOWN} more" if len(what) > SHOWN else "")
    return ConfigError(
        f"this machine would make different results: {shown}", code="TG0119", where=f"stage {given.stage}",
        hint="install the same checkout with the same requirements.lock, and the same pipelines.yaml",
    )  # fmt: skip


# --- both sides ----------------------------------------------------------------------------------------------------


def config_digest(spec: DataPipeline) -> str:
    """Return the digest of the part of the declaration that affects results."""
    return digest_of(spec.model_dump(mode="json", by_alias=True, exclude={"description", "place"}))


def _code(graph: Graph, stage: str) -> dict[str, str]:
    return code_of(node for node in graph.of_stage(stage) if runs_on_worker(graph, node))


def _libraries(graph: Graph, stage: str) -> dict[str, str]:
    names = {name for node in graph.of_stage(stage) if runs_on_worker(graph, node) for name in node.info.libraries}
    return {"python": f"{sys.version_info[0]}.{sys.version_info[1]}"} | {
        name: installed(name) for name in sorted(names)
    }


def _ended(folder: str, outcome: NodeOutcome) -> NodeEnd:
    if outcome.skipped:
        return NodeEnd(skipped=outcome.skipped)
    return NodeEnd(folder=folder, key=outcome.key, digest=outcome.result.digest, seconds=outcome.seconds)


def _portable(ref: ChampionRef | None, root: Path) -> dict[str, Any] | None:
    """Make the reference's paths relative to the shared folder, which may be mounted elsewhere on the worker."""
    if ref is None:
        return None
    plain: dict[str, Any] = ref.model_dump(mode="json")
    for name in ("model", "trained", "bundle"):
        plain[name]["root"] = Path(plain[name]["root"]).relative_to(root).as_posix()
    return plain


def _portable_examples(learned: DatasetRef, root: Path) -> dict[str, Any]:
    return {**learned.model_dump(mode="json"), "root": learned.root.relative_to(root).as_posix()}


def _registry_state(given: Handover, root: Path) -> RegistryState:
    champion, start = _arrived(given.champion, root), None
    if champion is not None and given.learned is not None:
        learned = {**given.learned, "root": str(root / given.learned["root"])}
        start = StartingPoint(champion, DatasetRef.model_validate(learned))
    return RegistryState(
        champion=champion, anchor=_arrived(given.anchor, root), start=start, seen=given.seen, worn=given.worn,
    )  # fmt: skip


def _arrived(plain: Mapping[str, Any] | None, root: Path) -> ChampionRef | None:
    if plain is None:
        return None
    placed = {name: {**plain[name], "root": str(root / plain[name]["root"])} for name in ("model", "trained", "bundle")}
    return ChampionRef.model_validate({**plain, **placed})


def _place(root: Path, run_id: str, stage: str, *, done: bool = False) -> Path:
    return private_folder(root / FOLDER) / f"{run_id}-{stage}{'-done' if done else ''}.json"


def _read(path: Path, kind: type[Any]) -> Any:
    try:
        return kind.model_validate(orjson.loads(path.read_bytes()))
    except (OSError, ValueError, ValidationError):
        raise SecurityError("the handover cannot be read", code="TG0840", where=str(path), hint="run again") from None
