"""One example of each command, shown under its help. A test parses every one."""

from __future__ import annotations

import typer

EXAMPLES = {
    "init": "tunegate init --from tickets.csv",
    "run": "tunegate run support-replies",
    "plan": "tunegate plan support-replies --json",
    "graph": "tunegate graph support-replies --mermaid",
    "validate": "tunegate validate --config other.yaml",
    "schema": "tunegate schema > pipelines.schema.json",
    "runs": "tunegate runs support-replies --limit 5",
    "show": "tunegate show 20261126-074621",
    "report": "tunegate report --last support-replies --out report.html",
    "status": "tunegate status --json",
    "predict": "tunegate predict support-replies --file ticket.txt",
    "up": "tunegate up",
    "down": "tunegate down",
    "explain": "tunegate explain TG0220",
    "doctor": "tunegate doctor --json",
    "curate": "tunegate curate support-replies",
    "funnel": "tunegate funnel support-replies --reasons",
    "quarantine": 'tunegate quarantine support-replies --sql "SELECT code, count(*) AS n FROM removed GROUP BY code"',
    "sample": "tunegate sample support-replies --where \"category = 'billing'\" -n 3",
    "lineage": "tunegate lineage T-000004 --pipeline support-replies",
    "forget": "tunegate forget CUSTOMER --plan",
    "migrate": "tunegate migrate --json",
    "metrics": "tunegate metrics > tunegate.prom",
    "gate explain": "tunegate gate explain 20261126-074621 --items 3",
    "estimate": "tunegate estimate --base llama-3.1-8b --rank 32",
    "preview": "tunegate preview support-replies -n 2",
    "reproduce": "tunegate reproduce 20261126-074621",
    "advise": "tunegate advise support-replies --queries 50000",
    "cost": "tunegate cost --base llama-2-7b --queries 100000",
    "ablate": "tunegate ablate support-replies --only raw --steps 40",
    "compare": "tunegate compare 20261126-074621 20261125-050000",
    "champion": "tunegate champion support-replies",
    "history": "tunegate history support-replies --verify",
    "promote": "tunegate promote support-replies 3 --force --reason 'hand-checked on 200 tickets'",
    "approve": "tunegate approve 20261126-074621 --by ada",
    "rollback": "tunegate rollback support-replies --reason 'complaints since Monday'",
    "reconcile": "tunegate reconcile",
    "tick": "tunegate tick support-replies",
    "serve": "tunegate serve",
    "deploy": "tunegate deploy --pool gpus",
    "feedback": "tunegate feedback support-replies outcomes.jsonl",
    "export": "tunegate export support-replies@champion --format merged --out handed-out",
    "verify": "tunegate verify handed-out --key release.pem",
    "endpoint": "tunegate endpoint support-replies --port 8399",
}
"""Command -> a line that a person may type."""


def add_examples(app: typer.Typer, group: str = "") -> None:
    """Put each command's example under its help."""
    for command in app.registered_commands:
        name = command.name or getattr(command.callback, "__name__", "")
        example = EXAMPLES.get(f"{group} {name}".strip())
        if example is not None:
            command.epilog = f"Example: {example}"
    for inner in app.registered_groups:
        if inner.typer_instance is not None and inner.name:
            add_examples(inner.typer_instance, f"{group} {inner.name}".strip())
