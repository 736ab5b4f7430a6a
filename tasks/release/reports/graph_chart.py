"""The graph of a run as SVG: a column of boxes per stage, lines for the edges. Text is escaped here.

It knows nothing of runs. Called by `tasks/release/reports/page.py`, whose style colours boxes and lines by class.

Within a column, a line to the next step below is straight. Other lines run in lanes next to the column: on its left
from one step to many, on its right from many to one. Lines to later columns are curves drawn under the boxes.
"""

from collections import Counter
from dataclasses import dataclass
from html import escape

from schemas.report import Edge, GraphPicture, PictureNode
from tasks.tickets.visible import visible

COLUMN = 268
"""Width of a stage, in pixels; four fit the page."""
LEFT, BOX, HEIGHT, GAP = 42, 172, 36, 10
TOP = 34
LANE, NEAREST = 6, 9
NAME_CHARS = 26


@dataclass(frozen=True)
class _Place:
    """Where a node's box is."""

    column: int
    row: int

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
    width, height = COLUMN * len(stages), TOP + max(map(len, stages.values())) * (HEIGHT + GAP)
    marks = [
        '<defs><marker id="tip" viewBox="0 0 6 6" refX="6" refY="3" markerWidth="6" markerHeight="6" '
        'markerUnits="userSpaceOnUse" orient="auto"><path class="tip" d="M0 0L6 3L0 6z"/></marker></defs>'
    ]
    marks += [
        f'<text class="stage" x="{column * COLUMN + LEFT}" y="20">{escape(visible(stage))}</text>'
        for column, stage in enumerate(stages)
    ]
    marks += _edges(picture, places)
    marks += [_box(node, places[node.name]) for node in picture.nodes]
    counts = ", ".join(f"{n} {state}" for state, n in picture.counts().items())
    label = f"Graph of {len(picture.nodes)} steps in {len(stages)} stages and {len(picture.edges)} edges: {counts}"
    return (
        f'<svg class="graph" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(label, quote=True)}">{"".join(marks)}</svg>'
    )


def _box(node: PictureNode, place: _Place) -> str:
    name = visible(node.name)
    shown = name if len(name) <= NAME_CHARS else f"{name[: NAME_CHARS - 1]}…"
    about = f"{name}: {node.status}{f' ({visible(node.reason)})' if node.reason else ''}"
    return (
        f'<g class="{node.state.replace(" ", "_")}"><title>{escape(about)}</title>'
        f'<rect x="{place.left}" y="{place.top}" width="{BOX}" height="{HEIGHT}" rx="4"/>'
        f'<rect class="bar" x="{place.left}" y="{place.top}" width="4" height="{HEIGHT}" rx="2"/>'
        f'<text class="name" x="{place.left + 11}" y="{place.top + 15}">{escape(shown)}</text>'
        f'<text class="status" x="{place.left + 11}" y="{place.top + 29}">{escape(node.status)}</text></g>'
    )


def _edges(picture: GraphPicture, places: dict[str, _Place]) -> list[str]:
    lanes = _lanes(picture, places)
    between, within = [], []
    for edge in picture.edges:
        start, end = places[edge[0]], places[edge[1]]
        if start.column != end.column:
            bend = max(30, (end.left - start.right) // 2)
            path = (
                f"M{start.right} {start.middle}C{start.right + bend} {start.middle} {end.left - bend} {end.middle} "
                f"{end.left} {end.middle}"
            )
            between.append(_line(edge, path, kind="edge between", dashed=edge in picture.deciding))
            continue
        if end.row == start.row + 1:
            middle = start.left + BOX // 2
            path = f"M{middle} {start.top + HEIGHT}V{end.top}"
        else:
            is_left, lane = lanes[edge]
            x = start.left - NEAREST - lane if is_left else start.right + NEAREST + lane
            side = start.left if is_left else start.right
            path = f"M{side} {start.middle + 6}H{x:.1f}V{end.middle - 6}H{side}"
        within.append(_line(edge, path, kind="edge", dashed=edge in picture.deciding))
    return [*between, *within]


def _line(edge: Edge, path: str, *, kind: str, dashed: bool) -> str:
    about = escape(visible(f"{edge[0]} to {edge[1]}"))
    dash = ' stroke-dasharray="4 3"' if dashed else ""
    return f'<path class="{kind}" d="{path}" marker-end="url(#tip)"{dash}><title>{about}</title></path>'


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
