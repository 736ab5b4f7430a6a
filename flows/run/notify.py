"""Notify people how a run ended, or what a tick warns of: by a webhook, a notification block of Prefect, or both.

Sent after the ledger has it. A failure here only prints a note. No ticket text and no ticket id is sent: only verdict,
versions, and the rules that are not met with their numbers.
"""

import os
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import urlsplit

import orjson

from flows.context.run_context import RunContext
from schemas.artifacts import GateDecision
from schemas.pipeline import model_of
from schemas.schedule import NotifySpec
from tasks.http_client import requested

TIMEOUT_S = 5.0


def notify_end(run: RunContext, decision: GateDecision | None) -> None:
    """Notify how the run ended, if `notify` is declared; never raises because of the receiver."""
    spec = run.spec.notify
    if spec is None:
        return
    try:
        message = message_of(run, decision)
        if message is None or message["verdict"] not in spec.on:
            return
        for failure in deliver(spec, message):
            run.listeners.noted(failure)
    except Exception as error:  # the verdict is final, whatever happens to the notification
        run.listeners.noted(f"no notification was sent: {type(error).__name__}")


def notify_warning(run: RunContext, warning: str) -> None:
    """Notify of what a tick warns of, if `notify` is declared; never raises because of the receiver."""
    spec = run.spec.notify
    if spec is None:
        return
    message = {
        "text": f"{run.spec.name}: {warning}",
        "pipeline": run.spec.name,
        "name": model_of(run.spec),
        "run_id": run.run_id,
        "warning": warning,
    }
    for failure in deliver(spec, message):
        run.listeners.noted(failure)


def message_of(run: RunContext, decision: GateDecision | None) -> dict[str, Any] | None:
    """Return what is sent; None for a run without news (skipped, interrupted, a single stage)."""
    row = run.ledger.run(run.run_id)
    is_done = run.outcome is not None and run.outcome.verdict == "DONE" and run.is_whole
    verdict = "ERROR" if row.status == "FAILED" else "DONE" if is_done else row.verdict
    if verdict is None:
        return None
    name = model_of(run.spec)
    champion, outcome = run.ledger.champion(name), run.outcome
    version = outcome.version if outcome is not None else None
    failed = row.reason.partition(":")[0] if row.status == "FAILED" else ""  # only the code: the text stays here
    text = f"{row.pipeline}: {verdict}" + (f" v{version}" if version else "") + (f" ({failed})" if failed else "")
    text += f", champion {'v' + champion.version if champion else 'none'}" if name else ""
    text += f"; tunegate show {row.run_id}"
    return {
        "text": text,
        "pipeline": row.pipeline,
        "name": name,
        "run_id": row.run_id,
        "verdict": verdict,
        "waits": bool(outcome is not None and outcome.waits),
        "version": version,
        "champion": champion.version if champion else None,
        "error": failed,
        "exit_code": row.exit_code,
        "ended_at": row.ended_at,
        "not_met": _not_met(decision) if decision is not None else [],
    }


def deliver(spec: NotifySpec, message: Mapping[str, Any], *, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Send the message to all receivers; return a sentence for each failure, without the address."""
    failures = []
    if spec.webhook_env is not None:
        why = _post(environ.get(spec.webhook_env, ""), message)
        failures += [f"the webhook of {spec.webhook_env} was not notified: {why}"] if why else []
    if spec.prefect_block is not None:
        why = _by_prefect(spec.prefect_block, message)
        failures += [f"Prefect's block {spec.prefect_block} was not notified: {why}"] if why else []
    return failures


def _not_met(decision: GateDecision) -> list[dict[str, Any]]:
    return [
        finding.model_dump(include={"rule", "verdict", "n_items", "candidate", "reference", "lower", "upper", "limit"})
        for finding in decision.findings
        if finding.decides and finding.verdict != "PROMOTE"
    ]


def _post(url: str, message: Mapping[str, Any]) -> str:
    """Return why it was not delivered; empty if it was."""
    if not url:
        return "the variable is not set"
    if urlsplit(url).scheme not in ("http", "https"):
        return "its value is not an http or https address"
    headers = {"Content-Type": "application/json"}
    try:
        with requested("POST", url, timeout_s=TIMEOUT_S, content=orjson.dumps(message), headers=headers) as response:
            return "" if response.is_success else f"HTTP {response.status_code}"
    except Exception as error:  # its text may contain the address
        return type(error).__name__


def _by_prefect(slug: str, message: Mapping[str, Any]) -> str:
    try:
        from prefect.blocks.abstract import NotificationBlock
        from prefect.blocks.core import Block

        block = cast("Any", Block.load(slug))
        if not isinstance(block, NotificationBlock):
            return "it is not a notification block"
        body = orjson.dumps(message, option=orjson.OPT_INDENT_2).decode()
        cast("Any", block).notify(body, f"tunegate {message['pipeline']}: {message.get('verdict', 'warning')}")
    except Exception as error:
        return type(error).__name__
    return ""
