"""How long replies are next to `evaluate.max_new_tokens`: a limit under them cuts answers, and no training helps.

Used by `tunegate plan` and by the report.
"""

from __future__ import annotations

from schemas.artifacts import DatasetRef
from tasks.release.reports.read import reply_tokens

PERCENTILE = 90


def cut_replies(dataset: DatasetRef, *, max_new_tokens: int) -> str | None:
    """A warning if the limit is under the 90th percentile of the encoded replies; None if it is not.

    Args:
        dataset: The encoded examples.
        max_new_tokens: Longest answer, in tokens.
    """
    lengths = sorted(reply_tokens(dataset.root / "train"))
    if not lengths:
        return None
    usual = lengths[min(len(lengths) - 1, PERCENTILE * len(lengths) // 100)]
    if usual <= max_new_tokens:
        return None
    share = sum(length > max_new_tokens for length in lengths) / len(lengths)
    return (
        f"evaluate.max_new_tokens {max_new_tokens} cuts {share:.0%} of the replies: their 90th percentile is {usual} "
        "tokens, and an answer of this length is never finished"
    )
