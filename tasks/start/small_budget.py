"""The small budget of `tunegate try`: settings with which a proposed pipeline reaches a verdict in two minutes.

Made for two CPU cores and the base model that `init` proposes: two minutes with Bitext's 4,514 requests on an AMD EPYC
with AVX2 alone, of which 45 seconds are the training and 36 the answers. It makes the training and the number of items
small; it changes no rule and no limit, so the usual verdict is HOLD, with the number of items that would decide.
"""

from __future__ import annotations

from dataclasses import dataclass

from tasks.start.propose import Proposal

TRAIN_TOKENS = 6_000
"""Of all examples together; read once through the frozen layers."""
MAX_EXAMPLES = 120
MIN_EXAMPLES = 24
MAX_LENGTH = 512
"""Tokens; longer examples are dropped, as the proposal does with its own limit."""
TOP_LAYERS = 6
"""Layers that learn. Those below are computed once for all epochs."""
EPOCHS = 2
BATCH_SIZE = 4
"""Examples of a step. Half of the proposal's makes twice the steps of the same tokens: with 38 examples 0.86 of the
answers had their form after 20 steps, and none after 10, in the same time."""
VALIDATE_EVERY = 1_000
"""Steps; more than a try has, so that the validation tickets are read once, at the end."""
MAX_ITEMS = 40
ARM_TOKENS = 4_000
"""Of an arm for all its items: prompts and references that it reads, and the answers that it writes."""
MIN_ITEMS = 16
LABEL_TOKENS = 32
"""Longest answer if the gate judges the label, which comes first."""
_CHARS_PER_TOKEN = 4.0
"""A usual English token; the proposal counts with 3, to be on the safe side of a limit."""
_PROMPT_TOKENS = 50
"""Of the system message and the chat format."""


@dataclass(frozen=True)
class SmallBudget:
    """What a try changes in a pipeline."""

    settings: tuple[str, ...]
    """`PATH=VALUE`, as `tunegate run --set` takes them."""
    summary: str


def small_budget(proposal: Proposal) -> SmallBudget:
    """The settings for this proposal."""
    sizes = proposal.sizes
    tokens = proposal.tickets.mean_chars / _CHARS_PER_TOKEN + _PROMPT_TOKENS
    n_examples = min(sizes.max_examples, max(MIN_EXAMPLES, min(MAX_EXAMPLES, int(TRAIN_TOKENS / tokens))))
    # A reply that is cut has its label, but `finished` and the wording would blame the model for the budget.
    n_new = min(sizes.max_new_tokens, LABEL_TOKENS) if proposal.routing else sizes.max_new_tokens
    n_items = min(sizes.max_items, max(MIN_ITEMS, min(MAX_ITEMS, int(ARM_TOKENS / (tokens + n_new)))))
    return SmallBudget(
        settings=(
            f"train.max_examples={n_examples}",
            f"train.max_length={min(sizes.max_length, MAX_LENGTH)}",
            f"train.epochs={EPOCHS}",
            f"train.batch_size={BATCH_SIZE}",
            f"train.validate_every={VALIDATE_EVERY}",
            f"train.adapter.layers={TOP_LAYERS}",
            f"evaluate.max_items={n_items}",
            f"evaluate.max_new_tokens={n_new}",
        ),
        summary=f"a small budget for a first look: {n_examples:,} of {sizes.max_examples:,} examples, {n_items:,} of "
        f"{sizes.max_items:,} held-out items",
    )
