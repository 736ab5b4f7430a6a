"""What a run's page shows next to its steps: rows kept and lost, the gate's findings, the report, MLflow's model."""

from contextlib import suppress
from urllib.parse import quote, urlsplit

from flows.context.run_context import RunContext
from flows.views.phrases import describe, gate_row
from flows.views.report import report_folder
from schemas.artifacts import GateDecision, Splits, TicketTable
from tasks.curate.curation_warnings import curation_warnings
from tasks.release.tracking import choose_uri
from tasks.tickets.visible import literal


def show_funnel(
    run: RunContext, *, names: tuple[str, ...], tables: tuple[TicketTable, ...], split: Splits, clean: Splits
) -> None:
    """Show the rows after each step; note the rules that drop many rows, and what the split loses."""
    steps = [*zip(names, tables, strict=True), ("split", split), ("decontaminate", clean)]
    rows = [{"step": name, "result": describe(result)} for name, result in steps]
    run.listeners.table("funnel", rows, "Rows kept and removed by each step")
    named = list(zip(names, tables, strict=True))
    for warning in curation_warnings(named, split, run.spec.split, pipeline=run.spec.name):
        run.listeners.noted(warning)


def show_verdict(run: RunContext, *, decision: GateDecision) -> None:
    """Show the gate's findings and its verdict."""
    reason = literal(decision.reason)  # may name labels; Prefect renders Markdown
    run.listeners.table("gate", [gate_row(finding) for finding in decision.findings], reason)
    run.listeners.text("verdict", f"# {decision.verdict}\n\n{reason}\n")


def show_report(run: RunContext) -> None:
    """Show the run's report, and where its page is."""
    folder = report_folder(run.settings.home, run.run_id)
    with suppress(OSError):  # without a report there is nothing to show
        run.listeners.text("report", (folder / "report.md").read_text(encoding="utf-8"))
        run.listeners.link("page", (folder / "report.html").resolve().as_uri(), "The report as a page")


def show_model(run: RunContext) -> None:
    """Show where MLflow's page of the registered model is, if a server has it."""
    declared = run.trained_spec.registry
    uri = choose_uri(declared.tracking_uri, run.settings.mlflow_tracking_uri, home=run.settings.home)
    named = urlsplit(uri)
    if named.scheme in ("http", "https"):
        address = named._replace(netloc=named.netloc.rpartition("@")[2]).geturl().rstrip("/")
        run.listeners.link("mlflow", f"{address}/#/models/{quote(declared.name, safe='')}", "The model in MLflow")
