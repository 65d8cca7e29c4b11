"""How time grows with size: the exponent p of a fit seconds = c N^p."""

import math
from collections.abc import Sequence


def fit_exponent(sizes: Sequence[float], seconds: Sequence[float]) -> tuple[float, float]:
    """Least squares in logarithms.

    Returns:
        The exponent and the largest factor by which a measurement is off the fit; NaN and NaN for fewer than
        two sizes.
    """
    x, y = [math.log(n) for n in sizes], [math.log(t) for t in seconds]
    if len(set(x)) < 2:
        return math.nan, math.nan
    middle, height = sum(x) / len(x), sum(y) / len(y)
    slope = sum((a - middle) * (b - height) for a, b in zip(x, y, strict=True)) / sum(
        (a - middle) ** 2 for a in x
    )
    off = max(abs(b - height - slope * (a - middle)) for a, b in zip(x, y, strict=True))
    return slope, math.exp(off)
