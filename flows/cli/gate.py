"""`tunegate gate`: verdicts.

Ticket text goes to stdout alone, read from the local store; a note on stderr never quotes it.
"""

from __future__ import annotations

from flows.cli.command import command, group
from flows.cli.options import CONFIG, Config, Items, Json, Metric, RunArgument
from flows.cli.output import print_json, talk

app = group("Look into a verdict.")


@command(app, example="tunegate gate explain 20261126-074621 --items 3")
def explain(
    run_id: RunArgument, metric: Metric = None, items: Items = 5, config: Config = CONFIG, as_json: Json = False
) -> int:
    """Explain a verdict, down to the items that decided.

    Each rule with its interval, items won and lost, and the worst items side by side.
    """
    from dataclasses import asdict

    from rich.markup import escape

    from flows.cli.text.gate import print_decision
    from flows.context.timings import read_timings
    from flows.views.run_reader import Recorded, shown_finding
    from flows.workspace.settings import load_settings
    from schemas.errors import ConfigError, TunegateError
    from tasks.assess.worst import WorstItem

    recorded = Recorded(load_settings(config), run_id)
    row, decision = recorded.row, recorded.decision()
    if decision is None:
        raise ConfigError(
            f"run {row.run_id} came to no gate, or its decision is no longer in the store",
            code="TG0159", where=row.run_id, hint=f"`tunegate show {row.run_id}` says how far it came",
        )  # fmt: skip
    figures = read_timings(recorded.settings, "latency", recorded.keys["latency"]) if "latency" in recorded.keys else {}
    finding = shown_finding(decision, metric)
    missing = ""
    worst: tuple[WorstItem, ...] = ()
    if items and finding is not None:
        try:
            worst = recorded.worst(decision, finding, items)
        except TunegateError as error:
            missing = error.message
    if as_json:
        print_json(
            {
                "run_id": row.run_id,
                "verdict": decision.verdict,
                "reason": decision.reason,
                "findings": [each.model_dump() for each in decision.findings],
                "measured": figures,
                "shown": {"metric": finding and finding.metric, "slice": finding and finding.slice},
                "worst_items": [asdict(item) for item in worst],
            }
        )
    else:
        print_decision(row.run_id, decision, figures, worst, finding)
    if missing:
        talk().print(f"[yellow]note[/yellow] the items are not shown: {escape(missing)}")
    return 0
