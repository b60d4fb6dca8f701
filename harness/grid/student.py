"""Quantiles of Student's t distribution."""


def student_quantile(p: float, freedom: int) -> float:
    """Return the value below which Student's t lies with probability `p`.

    >>> round(student_quantile(0.975, 9), 3)
    2.262
    """
    from scipy.special import stdtrit  # takes a fifth of a second to import, and only a plan needs it

    return float(stdtrit(freedom, p))
