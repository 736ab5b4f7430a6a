"""Likelihood of given tokens under a model: nats per token of the reference answers.

States or logits in, numbers out. The decoders hand over their own states, so that an answer's loss comes from the same
prompt states as the answer itself.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from schemas.errors import TrainingError

POSITIONS = 128
"""Positions with logits in memory at once: 25 MB in float32 for 49k tokens."""


def token_nats(states: Tensor, targets: Tensor, head: Callable[[Tensor], Tensor]) -> Tensor:
    """Negative log-likelihood of each target in nats, float32 (n,).

    Args:
        states: (n, d), the head's inputs; only positions before an answer's token.
        targets: Token ids (n,).
        head: Maps states to logits. The softmax is always computed in float32.
    """
    losses = []
    for start in range(0, len(targets), POSITIONS):
        logits = head(states[start : start + POSITIONS]).float()
        wanted = logits.gather(1, targets[start : start + POSITIONS, None])[:, 0]
        losses.append(torch.logsumexp(logits, -1) - wanted)
    return torch.cat(losses)


def chosen_logs(logits: Tensor, tokens: Tensor) -> Tensor:
    """Log-likelihood of each row's most likely token, float32 (rows,).

    Args:
        logits: (rows, vocabulary).
        tokens: Places of the largest ones (rows,), which need no second search.
    """
    wide = logits.to(torch.float32, copy=True)  # one copy and no other: three take four times as long
    return -wide.sub_(wide.gather(1, tokens[:, None])).exp_().sum(1).log()


def means_per_row(nats: Tensor, lengths: Sequence[int]) -> list[float]:
    """Mean over each row's tokens; the rows are concatenated.

    Raises:
        TrainingError: TG0420, a mean is not finite: the model is broken, not merely bad.

    >>> means_per_row(torch.tensor([1.0, 2.0, 5.0]), [2, 1])
    [1.5, 5.0]
    """
    means = [float(part.double().mean()) for part in torch.split(nats, list(lengths))]
    if not all(mean == mean and abs(mean) != float("inf") for mean in means):
        raise TrainingError(
            "the model gives no finite likelihood for a reference answer",
            code="TG0420",
            hint="its weights are damaged or its training diverged; lower train.learning_rate",
        )
    return means
