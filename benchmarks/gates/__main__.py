"""`make bench-gates`: what the gate promises, measured; then the league of other tools' rules beside it.

Everything is seeded. QUICK=1: within three minutes. ONLY=gate: without the league. RECORD=1: write `results/gates.md`
and `docs/plots/league.svg`. Exit code 1 if a bar is missed; a peer that is not there has no row, and misses none.

The last line of stdout is one JSON object: the bars of `promises.py`, p_minus3, p_equal, p_plus3, p_slice (shares
promoted, 0-1) and the other figures.
"""

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from benchmarks.gates.defaults import defaults
from benchmarks.gates.files import files
from benchmarks.gates.guards import guards
from benchmarks.gates.league import League
from benchmarks.gates.looks import looks, looks_table
from benchmarks.gates.promises import missed, promise_table, promises
from benchmarks.gates.real_pairs import Pair
from benchmarks.gates.simulated import measure
from benchmarks.measure import PROJECT, Bench, pinned

PICTURE = PROJECT / "docs" / "plots" / "league.svg"
PEERS = ("statgate", "evalsig", "truescore", "evalproof", "soup-cli")


def main() -> int:
    """Measure and report."""
    bench = Bench.begin("gates", "numpy", "scipy", "mlflow")
    if os.environ.get("ONLY") == "gate":
        body, figures = gate_alone(quick=bench.quick)
    else:
        body, figures = with_league(bench)
    figures["bars_missed"] = missed(figures)
    figures["bars_met"] = not figures["bars_missed"]
    head = "All bars are met." if figures["bars_met"] else f"Bars missed: {', '.join(missed(figures))}."
    bench.finish("The gate and the league", body, figures, head=head)
    return 0 if figures["bars_met"] else 1


def gate_alone(*, quick: bool, pairs: Sequence[Pair] = ()) -> tuple[str, dict[str, object]]:
    """Measure the gate; its tables and figures.

    Args:
        pairs: Real ones, to be judged from files.
    """
    body, figures = measure(quick=quick)
    figures |= promises(quick=quick) | guards(quick=quick) | looks(quick=quick) | files(quick=quick, pairs=pairs)
    written, found = defaults(quick=quick)
    figures |= found
    again = f"## A HOLD that is judged again, and stops\n\n{looks_table(figures)}"
    return f"{promise_table(figures)}\n\n{body}\n\n{again}\n\n## The gate that init writes\n\n{written}", figures


def with_league(bench: Bench) -> tuple[str, dict[str, object]]:
    """Measure the gate while the peers judge; the tables and figures of both."""
    bench.machine["peers"] = ", ".join(
        f"{name} {version}" for name, version in pinned("gates").items() if name in PEERS
    )
    league = League(quick=bench.quick)
    # The peers run in processes of their own, so they and our simulations have a core each.
    with bench.scratch() as scratch, ThreadPoolExecutor(1) as pool:
        peers = pool.submit(league.play, bench.home, scratch)
        body, figures = gate_alone(quick=bench.quick, pairs=league.pairs)
        peers.result()
    if bench.record:
        PICTURE.write_text(league.chart(), encoding="utf-8")
    sections = "\n\n".join(map(str, league.sections()))
    return f"{body}\n\n## The league\n\n{sections}", figures | {"league": league.figures()}


if __name__ == "__main__":
    sys.exit(main())
