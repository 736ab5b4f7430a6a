"""Perplexity of each ticket's body under the base model: the exponential of its mean nats per token.

`tasks/curate/quality.py` joins the numbers to the tickets and decides. Torch is imported inside functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from schemas.artifacts import ModelRef, Perplexities, TicketTable
from schemas.errors import TunegateError
from tasks.model.base_model import load_base, load_tokenizer, named_panics, resolve_dtype
from tasks.progress import Progress, silent
from tasks.step import as_step

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

Ids = tuple[int, ...]
K = TypeVar("K", str, Ids)
V = TypeVar("V")

BATCH_TOKENS = 2048
"""Positions, padding included, with logits in memory at once: 0.4 GB in float32 for 49k tokens."""
DIGITS = 5
"""Significant digits of a perplexity: further ones depend on threads and on the rest of the batch."""
_ENCODED_AT_ONCE = 1024
_ROW_CODES = frozenset({"TG0314"})
"""Errors of ours that a body can cause: the tokenizer gives up on it."""


@as_step("perplexity", libraries=("torch", "transformers"), heavy=True, memory_gb=2.0)
def measure_perplexity(
    out: Path,
    *,
    tickets: TicketTable,
    model: ModelRef,
    max_tokens: int = 256,
    batch_tokens: int = BATCH_TOKENS,
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    progress: Progress = silent,
) -> Perplexities:
    """Write `perplexities.parquet` (see `Perplexities`): one row per ticket.

    The first `max_tokens` tokens of a body count, each predicted from all before it; the first is predicted from the
    tokenizer's beginning-of-text token (or end-of-text, if there is none). A body without tokens has null. Equal bodies
    are read once. Batches depend on lengths only, so the order of rows changes nothing. If a body raises, a column
    `fault` names the exception's type, or our code for it, and `quality` quarantines the ticket.

    Raises:
        StorageError: the model's files are missing or damaged.
        TrainingError: TG0420, the model gives no finite likelihood.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(tickets.tickets, columns=["ticket_id", "body"])
    bodies = table["body"].to_pylist()
    # The token before the first takes one position of the context.
    limit = min(max_tokens, model.context_length - 1)
    tokenizer = load_tokenizer(model)
    ids_of, faults = _each_valid(
        sorted({body for body in bodies if body}),
        lambda some: _encoded(some, tokenizer, limit),
        n_at_once=_ENCODED_AT_ONCE,
    )
    distinct = sorted(set(ids_of.values()) - {()}, key=lambda ids: (-len(ids), ids))
    found: dict[Ids, float] = {}
    if distinct:
        start = _start_id(tokenizer)
        loaded = load_base(model, dtype=resolve_dtype(dtype))
        faulty_ids: dict[Ids, str] = {}
        for batch in batches(distinct, batch_tokens):
            values, raised = _each_valid(
                batch,
                lambda some: dict(zip(some, perplexities_of(loaded, some, start=start), strict=True)),
                n_at_once=len(batch),
            )
            found |= values
            faulty_ids |= raised
            progress(len(found), len(distinct), "bodies")
        faults |= {body: faulty_ids[ids] for body, ids in ids_of.items() if ids in faulty_ids}
    schema = pa.schema(
        [pa.field("ticket_id", pa.string(), nullable=False), pa.field("perplexity", pa.float64(), nullable=True)]
    )
    means = [found.get(ids_of.get(body, ())) if body else None for body in bodies]
    rows = pa.table([table["ticket_id"], pa.array(means, pa.float64())], schema=schema)
    if faults:
        rows = rows.append_column("fault", pa.array([faults.get(body or "") for body in bodies], pa.string()))
    rows = rows.sort_by("ticket_id")
    pq.write_table(rows, out / "perplexities.parquet", compression="zstd")
    return Perplexities(root=out, n_tickets=rows.num_rows, n_tokens=sum(map(len, distinct)))


def batches(ordered: Sequence[Ids], batch_tokens: int) -> Iterator[list[Ids]]:
    """Batches of neighbours in descending order of length, as many as fit when padded to the first.

    >>> list(batches([(1, 2, 3), (4, 5), (6,), (7,)], 6))
    [[(1, 2, 3), (4, 5)], [(6,), (7,)]]
    """
    start = 0
    while start < len(ordered):
        n_rows = max(1, batch_tokens // len(ordered[start]))
        yield list(ordered[start : start + n_rows])
        start += n_rows


def perplexities_of(model: nn.Module, batch: Sequence[Ids], *, start: int) -> list[float]:
    """exp(mean nats per token) of each row of token ids; every token is predicted.

    Args:
        model: In eval mode.
        start: The token before each row.

    Raises:
        TrainingError: TG0420, a mean is not finite.
    """
    import torch

    from tasks.model.likelihood import means_per_row, token_nats

    device: Any = next(model.parameters()).device
    longest = max(map(len, batch))
    # Pad with zeros on the right, where no token of the row attends.
    ids = torch.tensor([[start, *row] + [0] * (longest - len(row)) for row in batch], device=device)
    real = (torch.arange(longest)[None] < torch.tensor(list(map(len, batch)))[:, None]).to(device)
    mask = torch.cat([real.new_ones(len(batch), 1), real], 1).long()
    with torch.inference_mode():
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
        nats = token_nats(logits[real], ids[:, 1:][real], lambda given: given)
    means = means_per_row(nats.cpu(), [len(row) for row in batch])
    return [float(f"{math.exp(min(mean, 700.0)):.{DIGITS}g}") for mean in means]


def _encoded(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, limit: int) -> dict[str, Ids]:
    with named_panics():
        encoded = tokenizer(list(texts), add_special_tokens=False, truncation=True, max_length=limit)["input_ids"]
    return {text: tuple(ids) for text, ids in zip(texts, encoded, strict=True)}


def _each_valid(
    items: Sequence[K], work: Callable[[Sequence[K]], dict[K, V]], *, n_at_once: int
) -> tuple[dict[K, V], dict[K, str]]:
    """The results of `work`, called on `n_at_once` items; and for items that fail, the exception's type or our code.

    Raises:
        Exception: an error of `work` that no single item causes.
    """
    from tasks.tickets.row_fault import is_row_fault

    made: dict[K, V] = {}
    faults: dict[K, str] = {}
    for first in range(0, len(items), n_at_once):
        some = items[first : first + n_at_once]
        try:
            made |= work(some)
            continue
        except Exception as error:
            if not is_row_fault(error, _ROW_CODES):
                raise
            raised = _faulty(some, work)
            if not raised:
                raise
        valid = [item for item in some if item not in raised]
        made |= work(valid) if valid else {}
        faults |= raised
    return made, faults


def _faulty(items: Sequence[K], work: Callable[[Sequence[K]], object]) -> dict[K, str]:
    from tasks.tickets.row_fault import find_faulty

    found = find_faulty(lambda start, stop: work(items[start:stop]), 0, len(items), _ROW_CODES)
    return {
        items[place]: error.code if isinstance(error, TunegateError) else type(error).__name__ for place, error in found
    }


def _start_id(tokenizer: PreTrainedTokenizerBase) -> int:
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return int(start) if start is not None else 0
