"""How long an arm's prompts are, in the tokens of a model. Called by `flows/costs.py`; runs no model."""

from __future__ import annotations

from schemas.artifacts import ModelRef, PromptSet
from tasks.model.base_model import load_tokenizer
from tasks.model.chat_codec import ChatCodec
from tasks.model.generate import read_items


def mean_prompt_tokens(prompts: PromptSet, model: ModelRef) -> float:
    """Mean tokens of a prompt, with the template around it; the reference answer is not counted."""
    items = read_items(prompts, ChatCodec.of(load_tokenizer(model), prompts.format))
    return sum(len(item.prompt) for item in items) / len(items)
