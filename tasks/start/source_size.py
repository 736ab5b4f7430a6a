"""How large the tickets of a source are, before they are curated: what is usable, and tokens.

Counts alone, never a text. For `tunegate plan`; `tasks/start/tickets.py` does the same for a file without a pipeline.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.artifacts import TicketTable
from schemas.template import template_columns
from schemas.training import PromptSpec
from tasks.model.base_model import read_tokenizer
from tasks.tickets.prompts import messages_for, render_text

SAMPLE = 400
"""Tickets with a prompt and an answer."""
BYTES_PER_TOKEN = 4.0
"""UTF-8, of usual tokenizers: an English token has four letters, and a Chinese character three bytes."""
TURN_TOKENS = 5
"""Of the chat format, for each turn."""


@dataclass(frozen=True)
class SourceSize:
    """An estimate."""

    n_rows: int
    """Rows of the source, without those that it drops: of forgotten customers, and after `as_of`."""
    n_usable: int
    """Those with a text and what is learned from them; equal texts count once."""
    prompt_tokens: float
    """Mean of a prompt, system message included."""
    answer_tokens: float
    """Mean of an answer."""
    system_tokens: float = 0.0
    """Mean of the system message, which a prompt with examples has once."""


def measure_source(tickets: TicketTable, prompt: PromptSpec, *, tokenizer: Path | None = None) -> SourceSize:
    """Measure a table of tickets as a run would make examples of it.

    Args:
        tokenizer: The tokenizer.json that counts the tokens; None estimates them by bytes.
    """
    learned = template_columns(prompt.answer)
    shown = {name for text in (prompt.system, prompt.user) for name in template_columns(text)}
    wanted = {"body", "messages", *learned, *shown}
    n_rows = tickets.rows.n_in - tickets.rows.n_dropped
    file = pq.ParquetFile(tickets.tickets)  # `read_table` imports pandas
    table = file.read([name for name in file.schema_arrow.names if name in wanted])
    own = pc.is_valid(table["messages"]) if "messages" in table.column_names else pa.scalar(False)
    usable = own
    if all(name in table.column_names for name in ("body", *learned)):
        usable = pc.or_(reduce(pc.and_, (pc.is_valid(table[name]) for name in ("body", *learned))), own)
    if isinstance(usable, pa.Scalar):
        return SourceSize(n_rows, 0, 0.0, 0.0)
    found = table.filter(usable)
    texts = found["body"] if "body" in found.column_names else found["messages"]
    n_usable = pc.count_distinct(pc.utf8_lower(pc.utf8_trim_whitespace(texts)), mode="all").as_py()
    sample = found.take(list(range(0, found.num_rows, -(-found.num_rows // SAMPLE)))).to_pylist() if n_usable else []
    count = _by_bytes if tokenizer is None else _by_tokenizer(tokenizer)
    sizes = [_tokens_of(row, prompt, count) for row in sample]
    asked, answer, system = (sum(part) / max(1, len(sizes)) for part in zip(*sizes or [(0.0, 0.0, 0.0)], strict=True))
    return SourceSize(n_rows, n_usable, asked, answer, system)


def _tokens_of(row: dict[str, object], prompt: PromptSpec, count: Callable[[str], float]) -> tuple[float, float, float]:
    """Tokens of the prompt, of the answer and of the prompt's system message."""
    turns = [(turn["role"], count(str(turn["content"])) + TURN_TOKENS) for turn in messages_for(prompt, row)]
    asked = sum(tokens for _, tokens in turns)
    system = sum(tokens for role, tokens in turns if role == "system")
    if row.get("messages"):
        return asked, max(0.0, count(str(row["messages"])) - asked), system
    return asked, count(render_text(prompt.answer, row)) + TURN_TOKENS, system


def _by_bytes(text: str) -> float:
    return len(text.encode()) / BYTES_PER_TOKEN


def _by_tokenizer(file: Path) -> Callable[[str], float]:
    tokenizer = read_tokenizer(file)
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
