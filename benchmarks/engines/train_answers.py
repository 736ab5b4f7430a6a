"""Greedy answers to prompts: our decoder, and transformers' `generate` in batches and item by item.

Modes: `tunegate` (only answers, like the others), `tunegate-scored` (also the loss of each reference answer, as in an
evaluation), `batch` and `single`. Called in the project's environment as
`train_answers.py MODE DTYPE model.json prompts/ answer.json N_NEW N_ITEMS BATCH`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import torch

from schemas.artifacts import ModelRef
from tasks.model.answer_engine import greedy
from tasks.model.base_model import load_base, load_tokenizer
from tasks.model.chat_codec import ChatCodec
from tasks.model.decoding.decoder import left_padded
from tasks.model.decoding.fused_decoder import open_decoder
from tasks.model.generate import each_batch, parallel_batches, shared_prefix


def ours(
    model: Any,
    prompts: list[list[int]],
    references: list[list[int]] | None,
    n_new: int,
    stop: int,
    batch: int,
    *,
    keep_weights: bool = False,
) -> list[list[int]]:
    """Answer with our decoder: sorted by length, the shared prefix read once, batches in parallel as usual."""
    order = sorted(range(len(prompts)), key=lambda place: (-len(prompts[place]), place))
    batches = [order[start : start + batch] for start in range(0, len(order), batch)]
    with torch.no_grad():
        decoder = open_decoder(model, shared_prefix(prompts), keep_weights=keep_weights)

    def answer(places: Sequence[int]) -> list[list[int]]:
        with torch.inference_mode():
            longest = max((len(references[place]) for place in places), default=0) if references else 0
            reading = decoder.read([prompts[place] for place in places], room=max(n_new, longest))
            if references:
                reading.answer_losses([references[place] for place in places])
            return greedy(reading, len(places), n_new, frozenset({stop}))

    threads = torch.get_num_threads()
    out: list[list[int]] = [[] for _ in prompts]
    n = parallel_batches(threads, len(batches))
    for number, tokens in each_batch(answer, list(enumerate(batches)), n=n, threads=threads):
        for place, new in zip(batches[number], tokens, strict=True):
            out[place] = new
    return out


def warm_up(model: Any, prompts: list[list[int]], stop: int, batch: int) -> None:
    """Compile kernels, once per machine and source version; the model serves another decoder afterwards."""
    ours(model, prompts[:2], None, 2, stop, batch, keep_weights=True)


def stock(model: Any, prompts: list[list[int]], n_new: int, stop: int, batch: int) -> list[list[int]]:
    """Answer with `generate`: also sorted by length, padded on the left."""
    order = sorted(range(len(prompts)), key=lambda place: (-len(prompts[place]), place))
    out: list[list[int]] = [[] for _ in prompts]
    with torch.inference_mode():
        for start in range(0, len(order), batch):
            places = order[start : start + batch]
            ids, pads = left_padded([prompts[place] for place in places])
            mask = (torch.arange(ids.shape[1])[None] >= pads[:, None]).long()
            ends = {"max_new_tokens": n_new, "eos_token_id": stop, "pad_token_id": stop}
            whole = model.generate(ids, attention_mask=mask, do_sample=False, **ends)
            for place, new in zip(places, whole[:, ids.shape[1] :].tolist(), strict=True):
                # Up to and including the stop token: the rest is padding.
                out[place] = new[: new.index(stop) + 1] if stop in new else new
    return out


def main() -> None:
    """Load, answer, and write tokens and the cost of answering."""
    mode, dtype = sys.argv[1:3]
    model_file, prompts_folder, answer = map(Path, sys.argv[3:6])
    n_new, n_items, batch = map(int, sys.argv[6:9])
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    ref = ModelRef.model_validate_json(model_file.read_bytes())
    codec = ChatCodec.of(load_tokenizer(ref), "instruction")
    rows = pq.read_table(prompts_folder / "prompts.parquet").to_pylist()[:n_items]
    prompts = [codec.prompt_ids(orjson.loads(row["messages"])) for row in rows]
    references = [codec.answer_ids(row["answer"]) for row in rows]
    model = load_base(ref, dtype=getattr(torch, dtype))
    if mode.startswith("tunegate"):
        warm_up(model, prompts, codec.end_id, batch)
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    if mode.startswith("tunegate"):
        tokens = ours(model, prompts, references if mode == "tunegate-scored" else None, n_new, codec.end_id, batch)
    else:
        tokens = stock(model, prompts, n_new, codec.end_id, batch if mode == "batch" else 1)
    cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
    answer.write_text(json.dumps({"tokens": tokens, "cpu_s": cpu_s, "wall_s": wall_s}))


if __name__ == "__main__":
    main()
