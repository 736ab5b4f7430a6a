"""The arm `endpoint`: a remote model answers the held-out items, as a baseline.

Knows nothing of HTTP (`tasks/assess/endpoint_client.py`) and of verdicts. A step of `flows/assess.py`.
"""

import math
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.artifacts import Predictions, PromptSet
from schemas.evaluation import EndpointSpec
from tasks.assess.endpoint_client import Endpoint
from tasks.progress import Progress, silent
from tasks.step import BY_RUNNER, as_step


@as_step("answers", libraries=("pyarrow",))
def answer_by_endpoint(
    out: Path,
    *,
    prompts: PromptSet,
    endpoint: EndpointSpec,
    max_new_tokens: int,
    scratch: Path = BY_RUNNER,
    progress: Progress = silent,
) -> Predictions:
    """Write `predictions.parquet` (see `Predictions`); the loss is NaN, since an endpoint does not report it.

    Each answer is kept in `scratch`, so that an interruption does not pay for it twice.

    Raises:
        GateError: as `tasks.assess.endpoint_client.Endpoint`.
    """
    rows: list[dict[str, Any]] = pq.read_table(prompts.root / "prompts.parquet").sort_by("item_id").to_pylist()
    remote = Endpoint(endpoint)
    found: list[dict[str, Any]] = []
    for number, row in enumerate(rows):
        reply = remote.ask_once(orjson.loads(row["messages"]), max_new_tokens=max_new_tokens, kept=scratch)
        answer = {"text": reply.text, "n_new_tokens": reply.n_new_tokens, "finished": reply.finished}
        found.append({"item_id": row["item_id"], **answer, "loss": math.nan})
        progress(number + 1, len(rows), "items")
    types = {
        "item_id": pa.string(), "text": pa.string(), "n_new_tokens": pa.int64(), "finished": pa.bool_(),
        "loss": pa.float64(),
    }  # fmt: skip
    schema = pa.schema([pa.field(name, kind, nullable=False) for name, kind in types.items()])
    pq.write_table(pa.Table.from_pylist(found, schema), out / "predictions.parquet", compression="zstd")
    return Predictions(root=out, n_items=len(found), n_new_tokens=sum(row["n_new_tokens"] for row in found))
