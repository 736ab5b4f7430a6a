"""The commands and groups of `tunegate`: name, file of `flows/cli`, and the one line that lists it.

A file is imported when one of its commands is called: with all of them, a list of commands would take seconds.
"""

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

WEEKLY = {
    "init": ("starting", "Propose a commented pipelines.yaml for a file of tickets."),
    "try": ("starting", "Go from a file of tickets to a first verdict in minutes."),
    "validate": ("planning", "Check pipelines.yaml: all errors at once, each with its place."),
    "pin": ("pin", "Look up the commit that a branch of the hub is now."),
    "plan": ("planning", "Show what would run and why, how long and how large it is."),
    "run": ("running", "Run a pipeline from tickets to a verdict."),
    "status": ("status", "Show what is running, who is champion and which servers are up."),
    "runs": ("status", "List runs, newest first."),
    "show": ("reports", "Show one run: its steps, what was reused, the gate's findings."),
    "report": ("reports", "Write a run's report: a page, JSON, a comment and a JUnit file."),
    "predict": ("answering", "Let the champion answer a ticket, redacted as it was trained."),
    "graph": ("planning", "Draw the pipeline's steps and what they take from each other."),
    "explain": ("error_codes", "Explain an error code and what to do about it."),
}
"""Commands of the top level: what a user of a pipeline does every week."""
GROUPS = {
    "data": (
        "Curate tickets, look at them, trace and forget them.",
        {
            "curate": ("running", "Run the first stage alone: tickets to splits."),
            "funnel": ("data", "Show what became of the rows, step by step."),
            "quarantine": ("data", "List faulty rows with place and reason, or query in SQL."),
            "suspects": ("data", "List labels that others make unlikely, by file and week."),
            "review": ("reviewing", "Correct the tickets most worth a look, most useful first."),
            "export": ("data_exporting", "Write curated tickets for other programs, with a manifest."),
            "diff": ("data_diff", "Show which tickets two states do not share, and why."),
            "sample": ("data", "Show some curated tickets, the same for the same seed."),
            "preview": ("preview", "Show train examples as the model sees them, token by token."),
            "lineage": ("tracing", "Trace a ticket, a customer's tickets or a model."),
            "forget": ("tracing", "Find or remove everything that is held of a customer."),
            "dictionary": ("reference", "Describe every table, view and column of the warehouse."),
        },
    ),
    "gate": (
        "Judge files, explain a verdict, label for it, resume a HOLD.",
        {
            "check": ("gate_files", "Judge a candidate's results against the champion's, from files."),
            "explain": ("gate", "Explain a verdict, down to the items that decided."),
            "label": ("gate", "Label the answers on which candidate and champion differ."),
            "resume": ("gate", "Judge a held candidate again when held-out tickets have arrived."),
        },
    ),
    "model": (
        "Champions: decide, roll back, export, serve.",
        {
            "champion": ("history", "Show the champion and how it came to be."),
            "history": ("history", "Show every decision about the champion, and check the ledger."),
            "promote": ("decisions", "Make a candidate champion past the gate, on the record."),
            "approve": ("decisions", "Let in a candidate that waits for a person, or keep it out."),
            "rollback": ("decisions", "Make an earlier champion champion again; a cooldown begins."),
            "export": ("exporting", "Write a candidate for other programs, with a manifest."),
            "verify": ("verify", "Compare an exported folder with its manifest and signature."),
            "endpoint": ("endpoint", "Serve the champion over an OpenAI-compatible API."),
            "feedback": ("feedback", "Record what agents did with suggestions; show acceptance."),
        },
    ),
    "study": (
        "Estimate, price and compare trainings.",
        {
            "estimate": ("estimate", "Show which training method fits which card."),
            "advise": ("study", "Recommend prompting, retrieval, QLoRA, LoRA or full training."),
            "cost": ("study", "Show what a query costs and when a model of your own pays off."),
            "ablate": ("experiments", "Measure what curation is worth: train on curated and raw tickets."),
            "compare": ("study", "Compare two runs: settings, data, scores, cost, digests."),
            "reproduce": ("experiments", "Repeat a run's data and training steps and compare every byte."),
        },
    ),
    "ops": (
        "Servers, scheduled runs, health and maintenance.",
        {
            "up": ("servers", "Start the Prefect and MLflow servers, on loopback only."),
            "down": ("servers", "Stop this project's servers."),
            "serve": ("deploying", "Run pipelines by their `schedule`: at its times and on its events."),
            "tick": ("running", "Decide as the schedule does: run the pipeline, or skip."),
            "deploy": ("deploying", "Bring Prefect's deployments in line with pipelines.yaml."),
            "doctor": ("ops", "Check the machine, the state folder and the servers."),
            "reconcile": ("ops", "Bring MLflow up to date with the ledger; may be repeated."),
            "migrate": ("ops", "Copy the ledger to another database or folder, with its history."),
            "metrics": ("ops", "Print the ledger's figures as Prometheus metrics."),
            "schema": ("reference", "Print the JSON Schema of pipelines.yaml, for editors."),
        },
    ),
}
PARSERS: dict[tuple[str, str], typer.Typer] = {}
"""Module and name of each imported command -> its parser; `command` fills it."""


class ListedCommand(TyperCommand):
    """A command until it is called: its name and its one-line help."""

    def __init__(self, name: str, file: str, summary: str) -> None:
        super().__init__(name, help=summary)
        self._file = file

    def load(self) -> Any:
        """The command itself."""
        module = f"flows.cli.{self._file}"
        import_module(module)
        return typer.main.get_command(PARSERS[module, self.name or ""])

    def make_context(self, *arguments: Any, **named: Any) -> Any:
        """That of the command itself, so that it is what runs, shows its help and completes its options."""
        return self.load().make_context(*arguments, **named)


def listed(files: dict[str, tuple[str, str]]) -> dict[str, Any]:
    """The commands by name, none of them imported."""
    return {name: ListedCommand(name, file, summary) for name, (file, summary) in files.items()}


class TopLevel(TyperGroup):
    """The top level: its help fits a terminal of 24 lines."""

    def __init__(self, **settings: Any) -> None:
        groups = {
            name: TyperGroup(
                name=name, help=summary, commands=listed(files), no_args_is_help=True, rich_markup_mode=None
            )
            for name, (summary, files) in GROUPS.items()
        }
        super().__init__(**{**settings, "commands": {**listed(WEEKLY), **groups}})

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """The summary without the blank line above it."""
        formatter.write(f"  {self.help}\n")

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Commands, then groups, then the names of the options on one line."""
        found = [(name, self.commands[name]) for name in self.list_commands(ctx)]
        width = formatter.width - 4 - max(len(name) for name, _ in found)
        for title, is_group in (("Commands", False), ("Groups (tunegate GROUP --help)", True)):
            formatter.write(f"{title}:\n")
            rows = [(name, each) for name, each in found if isinstance(each, TyperGroup) == is_group]
            with formatter.indentation():
                formatter.write_dl([(name, each.get_short_help_str(width)) for name, each in rows])
        names = [parameter.opts[0] for parameter in self.params if parameter.opts[0] != "--help"]
        formatter.write(f"Options: --help, {', '.join(names)}\n")
