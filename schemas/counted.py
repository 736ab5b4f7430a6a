"""How many of something, in words: the one place that knows singular and plural."""


def counted(n: int, one: str, many: str = "") -> str:
    """The number and its noun, with what agrees with it.

    Args:
        one: For 1: `rule`, or `look is`.
        many: For every other number; `one` with an `s` if not given.

    >>> counted(1, "rule"), counted(7, "rule"), counted(1200, "look is", "looks are")
    ('1 rule', '7 rules', '1,200 looks are')
    """
    return f"{n:,} {one if n == 1 else many or f'{one}s'}"
