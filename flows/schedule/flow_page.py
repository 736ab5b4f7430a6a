"""What a flow run's page shows: the console's lines as its log, tables, texts and links as its artifacts, its tags."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from logging import Logger, LoggerAdapter
from typing import Any
from uuid import UUID

import httpx
from prefect import tags
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.client.orchestration import get_client
from prefect.context import TaskRunContext
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from flows.context.listener import Listener
from flows.graph.execute import NodeOutcome
from flows.graph.graph import Node
from flows.graph.prefect_runner import give_up
from flows.run.open_run import OpenRun
from flows.views.phrases import describe, describe_progress

EVERY_S = 15.0
"""Seconds between two lines about the progress of one node; its last one is always written."""


class FlowPage(Listener):
    """Writes lines and artifacts of a run to the page of its flow run, as long as Prefect answers.

    Args:
        key: Of the artifacts, with a place for their name: the same in all runs, so the server shows their history.
    """

    def __init__(self, log: LoggerAdapter[Any] | Logger, key: str) -> None:
        self._log, self._key = log, key
        self._last: dict[str, float] = {}

    def started(self, node: Node) -> None:
        self._last[node.name] = time.monotonic()

    def progressed(self, node: Node, done: int, total: int | None, unit: str, figures: dict[str, float]) -> None:
        if done == total or time.monotonic() - self._last.get(node.name, 0.0) >= EVERY_S:
            self._last[node.name] = time.monotonic()
            line = describe_progress(done, total, unit, figures)
            self._log.info("%s: %s", node.name, line)
            if TaskRunContext.get() is not None:  # the page of the stage shows what its tasks log
                get_run_logger().info(line)

    def ended(self, node: Node, outcome: NodeOutcome) -> None:
        if node.kind == "effect":
            return
        if outcome.skipped:
            self._log.info("%s: left out, %s", node.name, outcome.skipped)
        else:
            took = "reused" if outcome.reused else f"{outcome.seconds:.1f} s"
            self._log.info("%s: %s (%s)", node.name, describe(outcome.result), took)

    def noted(self, text: str) -> None:
        self._log.warning(text)

    def table(self, name: str, rows: list[dict[str, str]], caption: str) -> None:
        with _quietly():
            create_table_artifact(key=self._key_of(name), table=rows, description=caption)

    def text(self, name: str, markdown: str) -> None:
        with _quietly():
            create_markdown_artifact(key=self._key_of(name), markdown=markdown)

    def link(self, name: str, url: str, caption: str) -> None:
        with _quietly():
            create_link_artifact(key=self._key_of(name), link=url, link_text=caption)

    def _key_of(self, name: str) -> str:
        # Prefect allows only lower-case letters, digits and dashes.
        return re.sub(r"[^a-z0-9-]+", "-", self._key.format(name).lower()).strip("-")


@contextmanager
def _quietly() -> Iterator[None]:
    """Leave out an artifact that the server does not take."""
    try:
        yield
    except (httpx.TransportError, RuntimeError):
        give_up()
    except Exception:
        return


@contextmanager
def shown_on_page(opened: OpenRun) -> Iterator[None]:
    """Show the run on the calling flow run's page while the block runs; sub-flows and tasks get the pipeline's tag."""
    context = opened.context
    context.ledger.name_run(context.run_id, prefect_run_id=str(flow_run.get_id() or "") or None)
    # Projects share the server: the ledger's id distinguishes pipelines with equal names.
    log = get_run_logger()
    page = FlowPage(log, f"{context.spec.name}-{{}}-{(context.ledger.identity() or '')[:6]}")
    context.listeners.members.append(page)
    try:
        with tags(context.spec.name):
            yield
        if context.outcome is not None:
            log.info("%s: %s", context.outcome.verdict, context.outcome.reason)
    finally:
        context.listeners.members.remove(page)


def tag_flow_run(*names: str) -> None:
    """Add tags to the calling flow run, if the server answers."""
    flow_run_id = UUID(flow_run.get_id())
    with suppress(Exception), get_client(sync_client=True) as client:
        kept = client.read_flow_run(flow_run_id).tags
        client.update_flow_run(flow_run_id, tags=sorted({*kept, *names}))
