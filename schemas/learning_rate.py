"""Usual learning rates of each method, and those that are surely a mistake. Used by `training.py` and advice.

Source: full fine-tuning is published at 1e-5 to 5e-5; LoRA and QLoRA train few weights from zero and take about ten
times that (Biderman et al., LoRA Learns Less and Forgets Less, 2024).
"""

USUAL = {"full": (1e-5, 5e-5), "lora": (1e-4, 3e-4), "qlora": (1e-4, 3e-4)}
"""Method -> lowest and highest usual peak learning rate."""
FAR = 10.0
"""Factor beyond the usual rates from which a rate is refused."""
_SLACK = 1 + 1e-9
"""Tolerance for rounding: 3e-3 is exactly ten times 3e-4 and allowed."""


def is_usual(method: str, rate: float) -> bool:
    """Return whether the rate is usual for the method.

    >>> is_usual("lora", 2e-4), is_usual("full", 2e-4)
    (True, False)
    """
    if method not in USUAL:  # a ladder: each rung has its own method
        return True
    low, high = USUAL[method]
    return low / _SLACK <= rate <= high * _SLACK


def is_far_off(method: str, rate: float) -> bool:
    """Return whether the rate is more than `FAR` times beyond the usual ones.

    >>> is_far_off("lora", 2e-3), is_far_off("full", 2e-3)
    (False, True)
    """
    if method not in USUAL:
        return False
    low, high = USUAL[method]
    return not low / FAR / _SLACK <= rate <= high * FAR * _SLACK


def describe_unusual_rate(method: str, rate: float) -> str:
    """Say that the rate is unusual, and which ones are usual.

    >>> describe_unusual_rate("full", 2e-3)
    'learning_rate 0.002 is unusual for method full: 1e-05 to 5e-05 is usual'
    """
    low, high = USUAL[method]
    return f"learning_rate {rate:g} is unusual for method {method}: {low:g} to {high:g} is usual"
