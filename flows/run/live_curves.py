"""Send training curves to MLflow during training. `tunegate run` adds the listener to its run.

The complete curves follow with the run's record (`flows/champion/mlflow_sync.py`), so failures here do not matter
later.
"""

import queue
import threading
import time

from flows.context.listener import Listener
from flows.context.run_context import RunContext
from flows.graph.execute import NodeOutcome
from flows.graph.graph import Node
from flows.registry.address import registry_address
from flows.registry.owner import check_registry
from schemas.errors import TunegateError
from schemas.release import RunRecord
from schemas.secrets import masked
from tasks.release.tracking import begin_run, log_points, open_client

FLUSH_S = 1.0
JOIN_TIMEOUT_S = 15.0

Point = tuple[int, dict[str, float]]


class LiveCurves(Listener):
    """A listener that sends training figures to MLflow from its own thread."""

    # Importing mlflow and a slow server must not delay training: figures wait in a queue, and the first failure ends
    # the sending.

    def __init__(self, run: RunContext) -> None:
        self._run = run
        self._points: queue.Queue[Point | None] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._dead = False

    def progressed(self, node: Node, done: int, total: int | None, unit: str, figures: dict[str, float]) -> None:
        """Queue the figures of training. Nothing is sent before the first ones: a reused step has none."""
        if node.name != "train" or not figures or self._dead:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._send, name="mlflow-curves", daemon=True)
            self._thread.start()
        self._points.put((done, dict(figures)))

    def ended(self, node: Node, outcome: NodeOutcome) -> None:
        """Let the thread send the remaining figures, with a timeout."""
        if node.name == "train" and self._thread is not None:
            self._points.put(None)
            self._thread.join(timeout=JOIN_TIMEOUT_S)
            self._thread = None

    def _send(self) -> None:
        run, settings = self._run, self._run.settings
        register = run.trained_spec.registry
        uri = registry_address(register.tracking_uri, settings)
        try:
            client = open_client(uri)
            check_registry(run.trained_spec, settings, run.ledger)
            record = RunRecord(run_id=run.run_id, pipeline=run.spec.name, tags={"tunegate.pipeline": run.spec.name})
            mlflow_run = begin_run(client, record, experiment=masked(register.experiment), uri=uri)
            while points := self._take():
                log_points(client, mlflow_run, points, uri=uri)
        except Exception as error:  # whatever it is, training continues without curves
            self._dead = True
            reason = error.message if isinstance(error, TunegateError) else type(error).__name__
            run.listeners.noted(f"no live curves: {reason}")

    def _take(self) -> list[Point]:
        """Return the points of FLUSH_S from the first waiting one; empty at the end."""
        points: list[Point] = []
        point = self._points.get()
        deadline = time.monotonic() + FLUSH_S
        while point is not None:
            points.append(point)
            try:
                point = self._points.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return points
        if points:
            self._points.put(None)
        return points
