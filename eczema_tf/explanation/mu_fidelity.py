"""Mu-fidelity (Bhatt et al. 2020): are scores proportional to what the answer loses without them?

Unlike deletion of the highest, it tests all scores, of both words and places.
"""

import numpy as np

SUBSETS, SHARE = 16, 0.2  # drawn at random, and the share of words or cells that each erases


def compute_mu_fidelity(scores: np.ndarray, erased: np.ndarray, falls: np.ndarray) -> float:
    """Correlates the total score of erased parts with how far the answer falls without them.

    Args:
        scores: float (parts,), of words or pixels.
        erased: bool (subsets, parts).
        falls: float (subsets,), drops in the answer's probability without these parts.

    Returns:
        Pearson's correlation, in [-1, 1]; NaN if nothing differs.
    """
    sums = erased @ scores
    if not (np.ptp(sums) and np.ptp(falls)):
        return float("nan")
    return float(np.corrcoef(sums, falls)[0, 1])
