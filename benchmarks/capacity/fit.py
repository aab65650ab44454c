"""What each of three parts costs, from what several mixtures of them took."""

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


def parts(shapes: Numbers, taken: Numbers) -> tuple[tuple[float, float, float], float]:
    """Least squares of relative errors, so that a small mixture counts as much as a large one; and
    the share that the worst one is off. `shapes`: how many of each part, a row a mixture."""
    found = np.linalg.lstsq(shapes / taken[:, None], np.ones(len(taken)), rcond=None)[0]
    off = np.abs(shapes @ found / taken - 1).max()
    first, second, third = (float(each) for each in found)
    return (first, second, third), float(off)
