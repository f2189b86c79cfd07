"""Rows of a case to the case: which of them speak for it."""

import numpy as np


def find_fullest_rows(
    cases: np.ndarray, image_present: np.ndarray, text_present: np.ndarray
) -> np.ndarray:
    """Finds the rows whose joint answer counts for their case: those that have most to go on.

    Several photos of a case are averaged as evidence of one kind; a row without a photo has no
    opinion on them, and must not dilute theirs.

    Args:
        cases: (rows,), equal for the rows of one case.
        image_present: bool or 0 and 1 (rows,).
        text_present: Likewise.

    Returns:
        bool (rows,): whether no row of the same case has more of photo and text.
    """
    _, case = np.unique(cases, return_inverse=True)
    modalities = image_present.astype(int) + text_present.astype(int)
    most = np.zeros(len(cases), int)
    np.maximum.at(most, case, modalities)
    return modalities == most[case]
