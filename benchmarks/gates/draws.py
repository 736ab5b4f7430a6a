"""Pairs of scores that are hard to judge: heavy tails, customers with many tickets, answers that come in one by one."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Draw = Callable[[np.random.Generator, int], tuple[NDArray[np.float64], NDArray[np.float64]]]


def rare_collapse(generator: np.random.Generator, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A score between 0 and 1: slightly better answers, of which 2 % collapse; on average equal."""
    champion = generator.beta(8, 4, n)
    change = generator.normal(0.012, 0.05, n)
    collapsed = generator.random(n) < 0.02
    change[collapsed] = generator.normal(-0.6, 0.05, int(collapsed.sum()))
    return champion + change - (0.98 * 0.012 - 0.02 * 0.6), champion


def time_outs(generator: np.random.Generator, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Seconds per answer, negated: 5 % faster, but 1 % time out at 30 s; on average equal."""
    base = np.exp(generator.normal(0, 0.3, n))
    own = base * np.exp(generator.normal(-0.05, 0.1, n))
    late = generator.random(n) < 0.01
    mean = 0.99 * np.exp(0.3**2 / 2 - 0.05 + 0.1**2 / 2) + 0.01 * 30.0
    return -np.where(late, 30.0, own) + mean, -base + np.exp(0.3**2 / 2)


def empty_replies(generator: np.random.Generator, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A score between 0 and 1, such as chrF: a little better, but 1 % of the replies are empty; on average equal."""
    champion = generator.beta(5, 5, n)
    change = generator.normal(0.01, 0.1, n)
    change = np.where(generator.random(n) < 0.01, -champion, change)
    return champion + change - (0.99 * 0.01 - 0.01 * 0.5), champion


TAILS: Mapping[str, Draw] = {
    "1 % time-outs": time_outs, "1 % empty replies": empty_replies, "2 % collapse": rare_collapse,
}  # fmt: skip


def customers(
    generator: np.random.Generator,
    n_customers: int,
    tickets: int,
    *,
    discordance: float,
    correlation: float,
    delta: float = 0.0,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """0/1 scores whose wins and losses are correlated within customers (Dirichlet-multinomial).

    Args:
        delta: True difference of the shares of right answers.
    """
    shares = np.array([(discordance + delta) / 2, (discordance - delta) / 2, 1 - discordance])
    own = generator.dirichlet(shares * (1 / correlation - 1), n_customers)
    outcome = np.concatenate([generator.choice([1.0, -1.0, 0.0], tickets, p=each / each.sum()) for each in own])
    equal = (generator.random(len(outcome)) < 0.8).astype(np.float64)
    return np.where(outcome == 0, equal, outcome > 0).astype(float), np.where(outcome == 0, equal, outcome < 0) * 1.0


def differences(
    generator: np.random.Generator, rows: int, n: int, *, discordance: float, delta: float
) -> NDArray[np.int8]:
    """+1 for an item gained, -1 for one lost, in the order of the answers; shape (rows, n)."""
    luck = generator.random((rows, n), np.float32)
    gained, lost = (discordance + delta) / 2, (discordance - delta) / 2
    return np.where(luck < gained, 1, np.where(luck < gained + lost, -1, 0)).astype(np.int8)
