"""The graph of a run as SVG: a column of boxes per stage, lines for the edges.

It computes positions; `graph.svg.j2` writes the marks and escapes the text.

Within a column, a line to the next step below is straight. Other lines run in lanes next to the column: on its left
from one step to many, on its right from many to one. Lines to later columns are curves drawn under the boxes.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from schemas.report import Edge, GraphPicture
from tasks.pages.templates import render

COLUMN = 268
"""Width of a stage, in pixels; four fit the page."""
LEFT, BOX, HEIGHT, GAP = 42, 172, 36, 10
TOP = 34
LANE, NEAREST = 6, 9


@dataclass(frozen=True)
class _Place:
    """Where a node's box is."""

    column: int
    row: int
    width: int = BOX
    height: int = HEIGHT

    @property
    def left(self) -> int:
        return self.column * COLUMN + LEFT

    @property
    def right(self) -> int:
        return self.left + BOX

    @property
    def top(self) -> int:
        return TOP + self.row * (HEIGHT + GAP)

    @property
    def middle(self) -> int:
        return self.top + HEIGHT // 2


def draw_graph(picture: GraphPicture) -> str:
    """The SVG element; empty without nodes."""
    stages = picture.stages()
    if not stages:
        return ""
    places = {
        node.name: _Place(column, row) for column, nodes in enumerate(stages.values()) for row, node in enumerate(nodes)
    }
    counts = ", ".join(f"{n} {state}" for state, n in picture.counts().items())
    return render(
        "graph.svg.j2",
        folder=Path(__file__).parent,
        width=COLUMN * len(stages),
        height=TOP + max(map(len, stages.values())) * (HEIGHT + GAP),
        label=f"Graph of {len(picture.nodes)} steps in {len(stages)} stages and {len(picture.edges)} edges: {counts}",
        stages=[(column * COLUMN + LEFT, stage) for column, stage in enumerate(stages)],
        edges=_edges(picture, places),
        boxes=[(node, places[node.name]) for node in picture.nodes],
    )


def _edges(picture: GraphPicture, places: dict[str, _Place]) -> list[tuple[str, str, bool, str]]:
    """Class, path, whether it is dashed, and title; those to later columns first, under the others."""
    lanes = _lanes(picture, places)
    between, within = [], []
    for edge in picture.edges:
        start, end = places[edge[0]], places[edge[1]]
        about = (edge in picture.deciding, f"{edge[0]} to {edge[1]}")
        if start.column != end.column:
            bend = max(30, (end.left - start.right) // 2)
            path = (
                f"M{start.right} {start.middle}C{start.right + bend} {start.middle} {end.left - bend} {end.middle} "
                f"{end.left} {end.middle}"
            )
            between.append(("edge between", path, *about))
            continue
        if end.row == start.row + 1:
            middle = start.left + BOX // 2
            path = f"M{middle} {start.top + HEIGHT}V{end.top}"
        else:
            is_left, lane = lanes[edge]
            x = start.left - NEAREST - lane if is_left else start.right + NEAREST + lane
            side = start.left if is_left else start.right
            path = f"M{side} {start.middle + 6}H{x:.1f}V{end.middle - 6}H{side}"
        within.append(("edge", path, *about))
    return [*between, *within]


def _lanes(picture: GraphPicture, places: dict[str, _Place]) -> dict[Edge, tuple[bool, float]]:
    """Edge -> whether it is on the left, and its distance from the nearest lane, for edges that need a lane.

    Edges share a lane with those that leave the same step, or else with those that reach the same step.
    """
    in_lanes = [
        (start, end)
        for start, end in picture.edges
        if places[start].column == places[end].column and places[end].row != places[start].row + 1
    ]
    leaving, reaching = Counter(start for start, _ in in_lanes), Counter(end for _, end in in_lanes)
    groups: dict[tuple[bool, str], list[Edge]] = {}
    for edge in in_lanes:
        is_left = leaving[edge[0]] > reaching[edge[1]]
        groups.setdefault((is_left, edge[0] if is_left else edge[1]), []).append(edge)
    taken: dict[tuple[bool, int], list[list[tuple[int, int]]]] = {}
    found: dict[Edge, tuple[bool, int]] = {}

    def span(edges: list[Edge]) -> tuple[int, int]:
        rows = [places[name].row for edge in edges for name in edge]
        return min(rows), max(rows)

    for (is_left, _), edges in sorted(groups.items(), key=lambda group: span(group[1])[1] - span(group[1])[0]):
        low, high = span(edges)
        lanes = taken.setdefault((is_left, places[edges[0][0]].column), [])
        free = (each for each in lanes if all(high < first or last < low for first, last in each))
        lane = next(free, None)
        if lane is None:
            lane = []
            lanes.append(lane)
        lane.append((low, high))
        found |= {edge: (is_left, lanes.index(lane)) for edge in edges}
    n_lanes = {side: len(lanes) for side, lanes in taken.items()}
    return {
        edge: (is_left, number * _spacing(is_left, n_lanes[is_left, places[edge[0]].column]))
        for edge, (is_left, number) in found.items()
    }


def _spacing(is_left: bool, n_lanes: int) -> float:
    """Pixels between lanes: fewer if many lanes share the space next to a column."""
    room = (LEFT if is_left else COLUMN - LEFT - BOX) - NEAREST - LANE
    return min(LANE, room / max(1, n_lanes - 1))
