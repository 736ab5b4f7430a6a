"""What a run would do with each node and why, by the same keys that a run uses. Reads the store and writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from flows.graph.execute import Outcome, Run, digest_of_input
from flows.graph.graph import Node, handles_in
from flows.graph.keys import KeyParts, step_key, why_changed
from flows.graph.store import Damage
from schemas.artifacts import Artifact

State = Literal["reused", "run", "maybe", "left out"]


@dataclass(frozen=True)
class PlannedNode:
    """What will become of one node."""

    node: Node
    state: State
    """`reused`: it is in the store. `run`: it will run. `maybe`: known only when an earlier node has run. `left out`:
    it is not wanted."""
    reasons: tuple[str, ...] = ()
    """Why it runs, may run or does not; empty when reused."""
    key: str | None = None
    """None while an input is not known."""
    artifact: Artifact | None = None
    """The stored result, when reused."""

    @property
    def id(self) -> str:
        """`answers_champion`."""
        return self.node.id


def plan(run: Run) -> tuple[PlannedNode, ...]:
    """What would become of each node, in order. What is known of the run is noted in it; nothing is made."""
    planned: dict[str, PlannedNode] = {}
    for node in run.nodes():
        if node.kind == "grow":
            if run.ready(node):
                run.grow(node)
            if node.name in run.graph.became or run.graph.nodes.get(node.name) is not node:
                continue  # it has grown: what it became has its own line
        planned[node.name] = _planned(run, node)
    return tuple(planned[name] for name in run.graph.nodes if name in planned)


def _planned(run: Run, node: Node) -> PlannedNode:
    reason = run.why_left_out(node)  # perhaps known before all that the node takes
    if reason:
        run.outcomes[node.name] = Outcome(skipped=reason)
        return PlannedNode(node, "left out", (reason,))
    if not run.ready(node):
        return _planned_waiting(run, node)
    outcome = run.decide(node, deep=False)
    if outcome is None:
        return _planned_run(run, node)
    run.outcomes[node.name] = outcome
    return PlannedNode(node, "reused", key=outcome.key, artifact=outcome.result)


def _planned_run(run: Run, node: Node) -> PlannedNode:
    if node.kind == "act":
        return PlannedNode(node, "run", ("in every run",))
    parts = run.parts(node)
    found = run.store.look(node.folder, parts.key, node.returns)
    if isinstance(found, Damage):
        return PlannedNode(node, "run", (f"the stored result is damaged: {found.reason}",), key=parts.key)
    return PlannedNode(node, "run", _closest(run.store.known_parts(node.folder), parts, frozenset()), key=parts.key)


def _planned_waiting(run: Run, node: Node) -> PlannedNode:
    """Inputs are unknown; but when no earlier result agrees in all that is known, it certainly runs."""
    deciding = [run.graph.name_of(handle) for handle in node.scope.handles if run.outcome(handle) is None]
    missing = deciding or [parent.name for parent in run.graph.parents(node) if parent.name not in run.outcomes]
    waits = tuple(f"known when {name} has run" for name in dict.fromkeys(missing))
    undecided = bool(deciding)
    if node.kind != "step" or undecided:
        return PlannedNode(node, "maybe", waits)
    unknown = frozenset(
        name
        for name, value in node.arguments.items()
        if any(run.outcome(handle) is None for handle in handles_in(value))
    )
    arguments = run.arguments(node)
    inputs = {name: digest_of_input(node, name, arguments[name]) for name in node.inputs if name not in unknown}
    parts = step_key(node, {name: digest for name, digest in inputs.items() if digest is not None})
    reasons = _closest(run.store.known_parts(node.folder), parts, unknown)
    if not reasons or run.unchanged(node, parts, unknown=unknown) is not None:
        return PlannedNode(node, "maybe", waits)
    return PlannedNode(node, "run", reasons)


def _closest(earlier: Sequence[KeyParts], parts: KeyParts, unknown: frozenset[str]) -> tuple[str, ...]:
    """Why the step is none of the earlier ones, compared with the one that differs least (newest of several).

    Empty only when the unknown inputs alone may differ.
    """
    if not earlier:
        return ("never ran",)
    reasons = min((why_changed(old, parts, unknown=unknown) for old in earlier), key=len)
    if reasons or unknown:
        return reasons
    return ("its result was removed, or its last run was interrupted",)
