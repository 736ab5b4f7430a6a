"""The small budget of `tunegate try`: settings with which a proposed pipeline reaches a verdict in two minutes.

It makes the training and the number of items small; it changes no rule and no limit. Items come first: below the least
number of the gate no verdict is better than HOLD. What is left of the two minutes are examples.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from schemas.counted import counted
from schemas.curation_card import FEW
from tasks.start.propose import Proposal

BUDGET = 50_000
"""What training and answers may cost, in prompt tokens that a model reads: with 45 seconds for all other steps two
minutes on two quiet cores with bfloat16 at 3 ms of CPU time a token, and on four with AVX2 alone at 6 ms.
Source: docs/decisions/proposals.md."""
TRAIN_COST = 2
"""Of a token of an example: once through the frozen layers, two epochs forwards and backwards through the others."""
ARMS = 3
"""Arms that read all items: zero_shot, few_shot and the candidate."""
NEW_COST = 2
"""Of a token of an answer."""
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
MIN_ITEMS = 16
MAX_ITEMS = 40
"""If the least number of the gate is not reached."""
LABEL_TOKENS = 32
"""Longest answer if the gate judges the label, which comes first."""
_CHARS_PER_TOKEN = 4.0
"""A usual English token; the proposal counts with 3, to be on the safe side of a limit."""
_LABEL_BYTES_PER_TOKEN = 2.0
_PROMPT_TOKENS = 50
"""Of the system message and the chat format."""


@dataclass(frozen=True)
class SmallBudget:
    """What a try changes in a pipeline, and what that leaves."""

    settings: tuple[str, ...]
    """`PATH=VALUE`, as `tunegate run --set` takes them."""
    n_examples: int
    n_items: int
    n_least: int
    """Items below which no verdict is better than HOLD."""
    n_few: int
    """Labels that will have fewer than five examples, although there are more tickets of them."""
    summary: str

    @property
    def verdicts(self) -> tuple[str, ...]:
        """The verdicts that this try can reach, from best to worst."""
        promote = ("PROMOTE",) if self.n_items >= self.n_least else ()
        return (*promote, "HOLD", *(() if self.n_few else ("BLOCK",)))

    @property
    def outlook(self) -> str:
        """Which verdicts are possible, and why not all."""
        short = self.n_items < self.n_least
        labels = counted(self.n_few, "label gets", "labels get")
        why = [
            f"PROMOTE needs {self.n_least} items and this has {self.n_items}" * short,
            f"{labels} fewer than {FEW} examples, which is no reason to BLOCK" * bool(self.n_few),
        ]
        reasons = "; ".join(filter(None, why))
        return f"this try can end in {' or '.join(self.verdicts)}{f': {reasons}' if reasons else ''}"


def small_budget(proposal: Proposal, given: Sequence[str] = ()) -> SmallBudget:
    """The settings for this proposal.

    Args:
        given: The user's own settings of the same form, which come after these.
    """
    sizes, labels = proposal.sizes, proposal.tickets.labels
    tokens = proposal.tickets.mean_chars / _CHARS_PER_TOKEN + _PROMPT_TOKENS
    # A reply that is cut has its label, but `finished` and the wording would blame the model for the budget.
    n_new = min(sizes.max_new_tokens, _label_tokens(labels)) if proposal.routing else sizes.max_new_tokens
    example, item = TRAIN_COST * tokens, ARMS * (tokens + NEW_COST * n_new)
    n_least = sizes.n_least
    reaches = MIN_EXAMPLES * example + n_least * item <= BUDGET
    # Where the least number is too much for two minutes, more items change nothing, and more examples may.
    n_items = min(sizes.max_items, n_least if reaches else max(MIN_ITEMS, min(MAX_ITEMS, int(BUDGET / 2 / item))))
    left = int((BUDGET - n_items * item) / example)
    n_examples = min(sizes.max_examples, max(MIN_EXAMPLES, min(MAX_EXAMPLES, left)))
    settings = (
        f"train.max_examples={n_examples}",
        f"train.max_length={min(sizes.max_length, MAX_LENGTH)}",
        f"train.epochs={EPOCHS}",
        f"train.batch_size={BATCH_SIZE}",
        f"train.validate_every={VALIDATE_EVERY}",
        f"train.adapter.layers={TOP_LAYERS}",
        f"evaluate.max_items={n_items}",
        f"evaluate.max_new_tokens={n_new}",
    )
    n_examples = _given(given, "train.max_examples", n_examples)
    n_items = min(sizes.n_held_out, _given(given, "evaluate.max_items", n_items))
    share = n_examples / max(1, sum(labels.values()))
    return SmallBudget(
        settings=settings,
        n_examples=n_examples,
        n_items=n_items,
        n_least=n_least,
        n_few=sum(n * share < FEW <= n for n in labels.values()) if proposal.routing else 0,
        summary=f"a small budget for a first look: {n_examples:,} of {sizes.max_examples:,} examples, {n_items:,} of "
        f"{sizes.max_items:,} held-out items",
    )


def _given(given: Sequence[str], path: str, value: int) -> int:
    """The user's number for a setting, if there is one."""
    numbers = [text for name, _, text in (each.partition("=") for each in given) if name == path and text.isdigit()]
    return int(numbers[-1]) if numbers else value


def _label_tokens(labels: Mapping[str, int]) -> int:
    """Tokens of the longest label, brackets and end included."""
    longest = max((len(label.encode()) for label in labels), default=0)
    return min(LABEL_TOKENS, math.ceil(longest / _LABEL_BYTES_PER_TOKEN) + 6)
