"""Numbers as text."""

import math
from typing import Any

DASH = "–"


def number(value: Any, digits: int = 3) -> str:
    """Number with a given count of significant digits; a dash where there is none.

    >>> number(0.12345), number(None), number(12000.0), number(-0.00001234)
    ('0.123', '–', '12000', '-1.23e-05')
    """
    if value is None or not math.isfinite(value):
        return DASH
    if value != 0 and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits}g}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value)))) if value else 0
    text = f"{value:.{min(decimals, 6)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def share(part: int, total: int) -> str:
    """Count of a total as text.

    >>> share(3, 8), share(0, 0)
    ('3 of 8', 'none judged')
    """
    return f"{part} of {total}" if total else "none judged"


def bounds(low: float | None, high: float | None, digits: int = 2) -> str:
    """Interval as text; empty where it is not known, or has width 0.

    >>> bounds(0.25, 0.5), bounds(None, 1.0), bounds(0.5, 0.5)
    ('[0.25, 0.5]', '', '')
    """
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high) and low < high):
        return ""
    return f"[{number(low, digits)}, {number(high, digits)}]"


def probability(value: float | None) -> str:
    """P value as text.

    >>> probability(0.0004), probability(0.031)
    ('< 0.001', '0.031')
    """
    if value is None or not math.isfinite(value):
        return DASH
    return "< 0.001" if value < 0.001 else f"{value:.2g}" if value < 1 else "1"


def shortened(text: str, length: int) -> str:
    """Text cut at a length.

    >>> shortened("kl_sigmoid_of_relu", 8)
    'kl_sigm…'
    """
    return text if len(text) <= length else text[: length - 1] + "…"


def humanize(name: object) -> str:
    """Name as words.

    >>> humanize("full_collapse")
    'full collapse'
    """
    return str(name).replace("_", " ")
