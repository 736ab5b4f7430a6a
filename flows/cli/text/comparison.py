"""Two runs side by side, for people: what differs, and what of it the held-out items show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flows.cli.output import out, print_rows


def print_comparison(found: Mapping[str, Any]) -> None:
    """Both runs next to each other; equal settings and equal digests are counted, not listed."""
    for name, run in zip(("first ", "second"), found["runs"], strict=True):
        snapshot = f", snapshot {run['snapshot'][:16]}" if run["snapshot"] else ""
        ending = run["verdict"] or run["status"]
        out().print(f"{name} {run['run_id']}  {run['pipeline']}  {ending}{snapshot}", markup=False, soft_wrap=True)
    _table("settings that differ", found["settings"])
    _print_data(found["data"])
    metrics = found["metrics"]
    title = (
        f"the tuned models on the items that both answered; bounds one-sided at {100 * metrics['confidence']:g} %, "
        "each metric alone"
    )
    _table(title, [_metric_row(line) for line in metrics["lines"]])
    arms = [{**arm, "first": _figure(arm["first"]), "second": _figure(arm["second"])} for arm in found["arms"]]
    _table("all arms, each on its own run's items", arms)
    _table("cost", found["cost"])
    _print_digests(found["digests"])


def _print_data(data: Mapping[str, Any]) -> None:
    _table("rows by fate", data["fates"])
    _table("rows by reason", data["reasons"])
    _table("tickets", data["tickets"])
    if data["trained_here_held_out_there"]:
        n = data["trained_here_held_out_there"]
        out().print(f"{n:,} tickets were trained on in one run and held out in the other", markup=False)


def _metric_row(line: Mapping[str, Any]) -> dict[str, Any]:
    bounds = "" if line["lower"] is None else f"{line['lower']:+.3f} .. {line['upper']:+.3f}"
    return {
        "metric": line["metric"],
        "items": line["n_common"],
        "first": _figure(line["first"]),
        "second": _figure(line["second"]),
        "difference": "" if line["difference"] is None else f"{line['difference']:+.3f}",
        "bounds": bounds,
        "won / lost": "" if line["won"] is None else f"{line['won']} / {line['lost']}",
        "the second is": line["summary"],
    }


def _print_digests(digests: Sequence[Mapping[str, Any]]) -> None:
    differ = [
        {"step": each["step"], "first": (each["first"] or "")[:16], "second": (each["second"] or "")[:16]}
        for each in digests
        if not each["same"]
    ]
    _table(f"digests: {len(digests) - len(differ)} of {len(digests)} steps are the same bytes", differ)


def _table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    out().print(f"\n{title}" if rows else f"\n{title}: none", markup=False, style="bold")
    if rows:
        print_rows(rows)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
