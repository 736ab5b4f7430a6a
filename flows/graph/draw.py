"""Draw a graph, of what a run would do or of what one did, as text and as Mermaid.

The picture itself is plain data (`schemas/report.py`); `tasks/release/reports/graph_chart.py` draws it as SVG.
"""

import textwrap
from collections.abc import Mapping, Sequence

from flows.graph.execute import Run
from flows.graph.graph import Graph, Node
from flows.graph.plan import PlannedNode
from schemas.report import GraphPicture, PictureNode, PictureState
from tasks.tickets.visible import visible

COLOURS: Mapping[PictureState, tuple[str, str]] = {
    "reused": ("#e8eef7", "#2262a8"),
    "made": ("#ddf3e6", "#1a7f4b"),
    "run": ("#fdeccd", "#8a5a00"),
    "maybe": ("#ffffff", "#8a5a00"),
    "left out": ("#f4f6f9", "#8a94a1"),
    "failed": ("#fbdcd8", "#b3261e"),
    "not run": ("#ffffff", "#8a94a1"),
}
"""Fill and border of a box, by state. For Mermaid, which has no style sheet; the label has the state as well."""
NO_BREAK = "\N{NO-BREAK SPACE}"
"""Replaces a name's spaces while lines are wrapped, so that names stay in one piece."""
_ESCAPES = str.maketrans({"#": "#35;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "&": "#amp;", "`": "#96;"})
"""Characters with a meaning in a quoted label of Mermaid."""


def picture_of_plan(graph: Graph, planned: Sequence[PlannedNode], seconds: Mapping[str, float | None]) -> GraphPicture:
    """Draw what a run would do with each node.

    Args:
        graph: After planning: what could be expanded is.
        seconds: Node's name -> what it usually takes.
    """
    nodes = tuple(
        PictureNode(
            name=this.node.name,
            stage=this.node.stage,
            state=this.state,
            seconds=_planned_seconds(this, seconds.get(this.node.name)),
            reason="; ".join(this.reasons),
        )
        for this in planned
    )
    return _picture(graph, nodes)


def _planned_seconds(this: PlannedNode, typical: float | None) -> float | None:
    if this.state == "reused":
        return 0.0
    return None if typical is None or this.state == "left out" else round(typical, 1)


def picture_of_run(run: Run, *, failed: Mapping[str, str] | None = None) -> GraphPicture:
    """Draw the state of each node so far.

    Args:
        failed: Node's id -> its error, of those that failed.
    """
    nodes = tuple(_ended(run, node, failed or {}) for node in run.graph.nodes.values())
    return _picture(run.graph, nodes)


def _ended(run: Run, node: Node, failed: Mapping[str, str]) -> PictureNode:
    outcome = run.outcomes.get(node.name)
    state: PictureState
    seconds: float | None = None
    reason = ""
    if outcome is None and node.id in failed:
        state, reason = "failed", failed[node.id]
    elif outcome is None:
        state, reason = "not run", "the run ended first"
    elif outcome.skipped:
        state, reason = "left out", outcome.skipped
    else:
        state = "reused" if outcome.reused else "made"
        # Not for effects: the run's report shows the graph before the last of them have ended, and is not drawn again.
        seconds = None if node.kind == "effect" else round(outcome.seconds, 1)
    return PictureNode(name=node.name, stage=node.stage, state=state, seconds=seconds, reason=reason)


def _picture(graph: Graph, nodes: tuple[PictureNode, ...]) -> GraphPicture:
    edges = graph.edges()
    hands_over = {(each.name, node.name) for node in graph.nodes.values() for each in graph.inputs_of(node)}
    deciding = tuple(edge for edge in edges if edge not in hands_over)
    return GraphPicture(nodes=nodes, edges=tuple(edges), deciding=deciding)


def as_text(picture: GraphPicture, *, width: int = 100) -> str:
    """Write a line for each node below its stage: name, state, seconds and inputs.

    `<-` precedes the inputs, `if` what decides whether the node exists.

    Args:
        width: Characters of a line, unless a single name is longer.
    """
    name_width = max((len(node.name) for node in picture.nodes), default=0)
    state_width = max((len(node.state) for node in picture.nodes), default=0)
    lines: list[str] = []
    for stage, nodes in picture.stages().items():
        lines += ["", stage] if lines else [stage]
        for node in nodes:
            shows = node.seconds and node.state in ("made", "run", "maybe")
            seconds = f"{node.seconds:,.1f} s" if shows else ""
            head = f"  {node.name:<{name_width}}  {node.state:<{state_width}}  {seconds:>9}  "
            rest = _takes(picture, node)
            room = max(20, width - len(head))
            wrapped = textwrap.wrap(rest, room, break_long_words=False, break_on_hyphens=False)
            lines += [f"{head}{wrapped[0] if wrapped else ''}".replace(NO_BREAK, " ").rstrip()]
            lines += [f"{'':{len(head)}}{each}".replace(NO_BREAK, " ") for each in wrapped[1:]]
    return "\n".join(lines)


def _takes(picture: GraphPicture, node: PictureNode) -> str:
    above = [source for source, end in picture.edges if end == node.name]
    decides = [source for source, end in picture.deciding if end == node.name]
    takes = [source.replace(" ", NO_BREAK) for source in above if source not in decides]
    parts = [f"<-{NO_BREAK}{', '.join(takes)}"] if takes else []
    parts += [f"if{NO_BREAK}{', '.join(source.replace(' ', NO_BREAK) for source in decides)}"] if decides else []
    parts += [f"({node.reason})"] if node.reason and node.state in ("left out", "failed") else []
    return "  ".join(parts)


def as_mermaid(picture: GraphPicture) -> str:
    """Write a flowchart with a subgraph per stage; a dotted arrow only decides whether the node exists."""
    ids = {node.name: f"n{place}" for place, node in enumerate(picture.nodes)}
    lines = ["flowchart TD"]  # from the top: a chain of steps is longer than any stage is wide
    for place, (stage, nodes) in enumerate(picture.stages().items()):
        lines.append(f'  subgraph s{place}["{_escaped(stage)}"]')
        lines += [f'    {ids[node.name]}["{_escaped(node.name)}<br/>{_escaped(node.status)}"]' for node in nodes]
        lines.append("  end")
    for edge in picture.edges:
        lines.append(f"  {ids[edge[0]]} {'-.->' if edge in picture.deciding else '-->'} {ids[edge[1]]}")
    for state in picture.counts():
        fill, border = COLOURS[state]
        name = state.replace(" ", "_")
        lines.append(f"  classDef {name} fill:{fill},stroke:{border},color:#1c2430")
        lines.append(f"  class {','.join(ids[node.name] for node in picture.nodes if node.state == state)} {name}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """
    >>> _escaped('a "b" <c>')
    'a #quot;b#quot; #lt;c#gt;'
    """
    return " ".join(visible(text).translate(_ESCAPES).split())
