"""Plan what a run would do with each node and why, with the keys that a run uses. Reads the store, writes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from flows.graph.execute import NodeOutcome, Run
from flows.graph.graph import Node, handles_in, members
from flows.graph.keys import KeyParts, why_changed
from flows.graph.store import Damage
from schemas.artifacts import Artifact

State = Literal["reused", "run", "maybe", "left out"]
NEVER_RAN = "never ran"
"""Reason of a node that no run has made."""


@dataclass(frozen=True)
class PlannedNode:
    """What a run would do with one node."""

    node: Node
    state: State
    """`reused`: it is in the store. `run`: it will run. `maybe`: known only when an earlier node has run. `left out`:
    it is not needed."""
    reasons: tuple[str, ...] = ()
    """Why it runs, may run or does not; empty if reused."""
    key: str | None = None
    """None while an input is not known."""
    artifact: Artifact | None = None
    """The stored result, if reused."""

    @property
    def id(self) -> str:
        """`answers_champion`."""
        return self.node.id


def plan(run: Run, last: Mapping[str, str] | None = None) -> tuple[PlannedNode, ...]:
    """Return what would happen to each node, in order. Records in `run` what is known; makes nothing.

    Args:
        last: Node's id -> key of its last result, which the reasons compare with; without any, they compare with the
            stored result that differs least.
    """
    planned: dict[str, PlannedNode] = {}
    for node in run.nodes():
        if node.kind == "expand":
            if run.ready(node):
                run.expand(node)
            if node.name in run.graph.became or run.graph.nodes.get(node.name) is not node:
                continue  # it is expanded: its nodes have their own lines
        planned[node.name] = _planned(run, node, last or {})
    return tuple(planned[name] for name in run.graph.nodes if name in planned)


def _planned(run: Run, node: Node, last: Mapping[str, str]) -> PlannedNode:
    reason = run.why_left_out(node)  # perhaps known before all inputs are
    if reason:
        run.outcomes[node.name] = NodeOutcome(skipped=reason)
        return PlannedNode(node, "left out", (reason,))
    if not run.knows_inputs(node):
        return _planned_waiting(run, node, last)
    outcome = run.decide(node, deep=False)
    if outcome is None:
        return _planned_run(run, node, last)
    run.outcomes[node.name] = outcome
    return PlannedNode(node, "reused", key=outcome.key, artifact=outcome.result)


def _planned_run(run: Run, node: Node, last: Mapping[str, str]) -> PlannedNode:
    if node.kind == "effect":
        return PlannedNode(node, "run", ("in every run",))
    parts = run.parts(node)
    found = run.store.look(node.folder, parts.key, node.returns)
    if isinstance(found, Damage):
        return PlannedNode(node, "run", (f"the stored result is damaged: {found.reason}",), key=parts.key)
    return PlannedNode(node, "run", _closest(_earlier(run, node, last), parts, frozenset()), key=parts.key)


def _planned_waiting(run: Run, node: Node, last: Mapping[str, str]) -> PlannedNode:
    # Some inputs are unknown, but if no earlier result matches what is known, the node certainly runs.
    conditions = (handle for each in node.scope.unless for handle in handles_in(each.values))
    deciding = [run.graph.name_of(handle) for handle in conditions if run.outcome(handle) is None]
    missing = deciding or [parent.name for parent in run.graph.parents(node) if parent.name not in run.outcomes]
    waits = tuple(f"known when {name} has run" for name in dict.fromkeys(missing))
    if node.kind != "step" or deciding:
        return PlannedNode(node, "maybe", waits)
    unknown = frozenset(
        name
        for name, value in members(node.arguments)
        if any(run.outcome(handle) is None for handle in handles_in(value))
    )
    parts = run.parts(node, unknown=unknown)
    reasons = _closest(_earlier(run, node, last), parts, unknown)
    if not reasons or run.unchanged(node, parts, unknown=unknown) is not None:
        return PlannedNode(node, "maybe", waits)
    return PlannedNode(node, "run", reasons)


def _earlier(run: Run, node: Node, last: Mapping[str, str]) -> tuple[KeyParts, ...]:
    """What the node's result was made from the last time; of a pipeline that never ran, all results of its kind."""
    if not last:
        return run.store.known_parts(node.folder)
    parts = run.store.parts(node.folder, last[node.id]) if node.id in last else None
    return () if parts is None else (parts,)


def _closest(earlier: Sequence[KeyParts], parts: KeyParts, unknown: frozenset[str]) -> tuple[str, ...]:
    """Return why the step must run, compared with the earlier result that differs least (newest of several).

    Empty only if nothing but the unknown inputs may differ.
    """
    if not earlier:
        return (NEVER_RAN,)
    # Another function has other parameters, code and libraries, of which none has changed.
    name = parts.function.rpartition(".")[2]
    alike = [old for old in earlier if old.function.rpartition(".")[2] == name]
    if not alike:
        return (f"made by {name} instead of {earlier[0].function.rpartition('.')[2]}",)
    reasons = min((why_changed(old, parts, unknown=unknown) for old in alike), key=len)
    if reasons or unknown:
        return reasons
    return ("its result was removed, or its last run was interrupted",)
