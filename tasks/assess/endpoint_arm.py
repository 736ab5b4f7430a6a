"""The arm `endpoint`: a remote model answers the held-out items, as a baseline or as the incumbent.

Knows nothing of HTTP (`tasks/assess/endpoint_client.py`) and of verdicts. Steps of `flows/prepare.py`: whether the
endpoint answers is known before anything is trained.
"""

import math
from pathlib import Path
from statistics import fmean
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.artifacts import CheckEvidence, Predictions, PromptSet
from schemas.errors import GateError
from schemas.evaluation import EndpointSpec, TokenPrices
from schemas.verdicts import INCUMBENT
from tasks.assess.endpoint_client import Endpoint, Reply
from tasks.progress import Progress, silent
from tasks.step import as_step
from tasks.storage.files import write_json


@as_step("answers", libraries=("pyarrow",), context=("endpoint", "kept"))
def answer_by_endpoint(
    out: Path,
    *,
    prompts: PromptSet,
    base_url: str,
    model: str,
    endpoint: EndpointSpec,
    max_new_tokens: int,
    kept: Path,
    progress: Progress = silent,
) -> Predictions:
    """Write `predictions.parquet` (see `Predictions`), with n_prompt_tokens as the server counts them (0 if it does
    not) and has_text; the loss is NaN, since an endpoint does not report it.

    Args:
        base_url: Of the endpoint; with model, prompts and max_new_tokens it is all that an answer depends on.
        endpoint: How it is reached.
        kept: Folder in which answers are kept by what was asked, for this and later runs.

    Raises:
        GateError: as `tasks.assess.endpoint_client.Endpoint`; TG0616, the endpoint is not the one of the key.
    """
    if (endpoint.base_url, endpoint.model) != (base_url, model):
        raise GateError("the endpoint is another than the one that the result is kept for", code="TG0616")
    rows: list[dict[str, Any]] = pq.read_table(prompts.root / "prompts.parquet").sort_by("item_id").to_pylist()
    remote = Endpoint(endpoint)
    kept.mkdir(parents=True, exist_ok=True, mode=0o700)
    found: list[Reply] = []
    for row in rows:
        found.append(remote.ask_once(orjson.loads(row["messages"]), max_new_tokens=max_new_tokens, kept=kept))
        progress(len(found), len(rows), "items")
    progress(len(found), len(rows), "items", **timings_of(found))
    columns = {
        "item_id": pa.array([row["item_id"] for row in rows], pa.string()),
        "text": pa.array([reply.text for reply in found], pa.string()),
        "n_new_tokens": pa.array([reply.n_new_tokens for reply in found], pa.int64()),
        "finished": pa.array([reply.finished for reply in found], pa.bool_()),
        "loss": pa.array([math.nan] * len(found), pa.float64()),
        "n_prompt_tokens": pa.array([reply.n_prompt_tokens for reply in found], pa.int64()),
        "has_text": pa.array([reply.has_text and bool(reply.text.strip()) for reply in found], pa.bool_()),
    }
    schema = pa.schema([pa.field(name, values.type, nullable=False) for name, values in columns.items()])
    pq.write_table(pa.table(columns, schema), out / "predictions.parquet", compression="zstd")
    return Predictions(root=out, n_items=len(found), n_new_tokens=sum(reply.n_new_tokens for reply in found))


def timings_of(replies: list[Reply]) -> dict[str, float]:
    """Seconds of an answer over the network: the mean, and nearest-rank percentiles; empty without answers.

    >>> timings_of([Reply("a", True, 1, 1, seconds=each) for each in (1.0, 2.0, 6.0)])
    {'endpoint_mean_s': 3.0, 'endpoint_latency_p50_s': 2.0, 'endpoint_latency_p95_s': 6.0}
    """
    if not replies:
        return {}
    seconds = sorted(reply.seconds for reply in replies)
    median, high = (seconds[math.ceil(share * len(seconds)) - 1] for share in (0.5, 0.95))
    return {"endpoint_mean_s": fmean(seconds), "endpoint_latency_p50_s": median, "endpoint_latency_p95_s": high}


@as_step("endpoint_answers", libraries=("pyarrow",))
def inspect_answers(
    out: Path, *, answers: Predictions, prices: TokenPrices | None, max_incomplete: float
) -> CheckEvidence:
    """Count the answers that are not whole, and what all of them cost; write `evidence.json`, without texts."""
    table = pq.read_table(
        answers.root / "predictions.parquet", columns=["n_new_tokens", "finished", "n_prompt_tokens", "has_text"]
    )
    n_items, empty = table.num_rows, pc.invert(table["has_text"])
    cut = pc.and_(table["has_text"], pc.invert(table["finished"]))
    n_in, n_out = (int(pc.sum(table[name]).as_py() or 0) for name in ("n_prompt_tokens", "n_new_tokens"))
    counted = bool(n_items) and pc.all(pc.greater(table["n_prompt_tokens"], 0)).as_py()
    values: dict[str, float | None] = {
        "empty": float(pc.sum(empty).as_py() or 0),
        "cut": float(pc.sum(cut).as_py() or 0),
        "allowed": max_incomplete,
        "prompt_tokens": float(n_in) if counted else None,
        "new_tokens": float(n_out) if counted else None,
        "usd_per_1k": 1000 * prices.usd(n_in, n_out) / n_items if prices is not None and counted else None,
    }
    write_json(out / "evidence.json", values)
    return CheckEvidence(root=out, check=INCUMBENT, n_items=n_items, values=values)
