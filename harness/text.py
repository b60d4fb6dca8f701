"""Words of counts, for all that is printed."""


def plural(count: int, word: str) -> str:
    """Count with its noun.

    >>> plural(1, "seed"), plural(8, "seed")
    ('1 seed', '8 seeds')
    """
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
