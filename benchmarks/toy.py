"""The toy world: a model of 100,000 weights that knows a few general answers, and tickets with one deciding word.

Everything is seeded. One core trains the model in seconds; everything else is a normal run.
"""

import json
import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tasks.assess.suite import build_suite

Row = dict[str, Any]
DECIDING: Mapping[str, Mapping[str, str]] = {
    "Sofa": {"refund": "billing", "parcel": "delivery"},
    "Desk": {"invoice": "billing", "courier": "delivery"},
    "Lamp": {"charge": "billing", "driver": "delivery"},
}
"""Product -> word in the ticket -> category; each product has its own words."""
SHARES = {"Sofa": 3, "Desk": 2, "Lamp": 1}
OTHER = {"billing": "delivery", "delivery": "billing"}
SUITE_ITEMS = 20
_SYLLABLES = ("ba", "ko", "mi", "tu", "re", "sa", "lo", "ne", "vi", "du", "pa", "zo")
_CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def tickets(n_tickets: int, *, seed: int = 0) -> list[Row]:
    """Tickets ordered by time, one per hour, each from a different customer."""
    rng = random.Random(seed)  # noqa: S311
    products = [product for product, share in SHARES.items() for _ in range(share)]
    start, rows = datetime(2026, 6, 1, tzinfo=UTC), []
    for number in range(n_tickets):
        product = rng.choice(products)
        word, category = rng.choice(sorted(DECIDING[product].items()))
        chatter = ["".join(rng.choices(_SYLLABLES, k=2)) for _ in range(9)]
        rows.append(
            {
                "ticket_id": f"t{number:05}", "customer_id": f"c{number:05}", "thread_id": f"t{number:05}",
                "created_at": (start + timedelta(hours=number)).isoformat(), "product": product,
                "subject": product, "body": f"{' '.join(chatter)} {word}", "category": category,
                "reply": f"[{category}]",
            }
        )  # fmt: skip
    return rows


def relabel(row: Row) -> Row:
    """The ticket with the other category."""
    category = OTHER[row["category"]]
    return row | {"category": category, "reply": f"[{category}]"}


def build_base(root: Path, *, seed: int = 0) -> Path:
    """Write a small Llama that answers `SUITE_ITEMS` general questions, and tickets with a category at random."""
    import pyarrow.parquet as pq
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    suite = root.with_name(f"{root.name}-suite")
    suite.mkdir(parents=True)
    build_suite(suite="general", max_items=SUITE_ITEMS, seed=0, format="instruction", out=suite)
    items = pq.read_table(suite / "prompts.parquet").to_pylist()
    turns = [[*json.loads(row["messages"]), {"role": "assistant", "content": row["answer"]}] for row in items]
    rng = random.Random(seed)  # noqa: S311
    turns += [
        [{"role": "user", "content": row["body"]}, {"role": "assistant", "content": f"[{rng.choice(sorted(OTHER))}]"}]
        for row in tickets(40, seed=seed + 1)
    ]
    root.mkdir()
    tokenizer = tokenizer_of([turn["content"] for conversation in turns for turn in conversation])
    tokenizer.save_pretrained(root)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.1, tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    _teach(model, tokenizer, turns)
    model.save_pretrained(root)
    return root


def _teach(model: Any, tokenizer: Any, turns: list[list[dict[str, str]]], n_steps: int = 60) -> None:
    """Train with full-batch steps on the answers only."""
    import torch

    from tasks.model.chat_codec import ChatCodec

    codec = ChatCodec.of(tokenizer, "instruction")
    examples = [codec.conversation(conversation) for conversation in turns]
    longest = max(len(example.input_ids) for example in examples)
    ids = torch.tensor([example.input_ids + [0] * (longest - len(example.input_ids)) for example in examples])
    mask = torch.tensor([example.loss_mask + [0] * (longest - len(example.loss_mask)) for example in examples])
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    model.train()
    for _ in range(n_steps):
        model(input_ids=ids, labels=ids.masked_fill(mask == 0, -100)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def tokenizer_of(texts: list[str]) -> Any:
    """A byte-level BPE with a ChatML template, in which each deciding word is one token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    words = [word for product in DECIDING.values() for word in product]
    trainer = trainers.BpeTrainer(
        vocab_size=640, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"], show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )  # fmt: skip
    tokenizer.train_from_iterator([*texts, *[f" {word} {word} [billing] [delivery]" for word in words] * 20], trainer)
    marks = {"bos": "<|im_start|>", "eos": "<|im_end|>", "pad": "<|im_end|>", "unk": "<|endoftext|>"}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=512, **{f"{name}_token": mark for name, mark in marks.items()}
    )
    fast.chat_template = _CHATML
    return fast
