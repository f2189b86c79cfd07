"""Rows of a case to the case: which of them speak for it, in training, evaluation and serving."""

from collections.abc import Mapping

import numpy as np

from eczema_tf.schema import MODALITIES


def find_speaking_rows(
    cases: np.ndarray, used: Mapping[str, np.ndarray], known: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Finds the rows whose log-odds are averaged for their case: one rule wherever rows are pooled.

    Several photos of a case are averaged as evidence of one kind, since that of each is noisy. But
    what is unlike all training is noise alone: a photo (or text) that is not known says nothing of
    its case where another one is known. Of photo and text together, the rows speak that have most
    to go on: a row without a photo has no opinion on the photos of others, and must not dilute
    theirs, and a row with something that says nothing is worth less than one without.

    Args:
        cases: (rows,), equal for the rows of one case.
        used: By `MODALITIES`, bool (rows,): what each row has.
        known: Likewise, what is like training; never true where `used` is not. The same as `used`
            where that cannot be told.

    Returns:
        By modality and "fusion", bool (rows,). Some row of each case speaks for fusion, and for a
        modality, if any row has it.
    """
    _, case = np.unique(cases, return_inverse=True)
    speaks, weight = {}, np.zeros(len(case), int)
    for modality in MODALITIES:
        any_known = np.bincount(case, known[modality]) > 0
        speaks[modality] = np.where(any_known[case], known[modality], used[modality])
        weight += 2 * speaks[modality].astype(int) - used[modality]
    most = np.full(len(case), -len(MODALITIES))
    np.maximum.at(most, case, weight)
    return {**speaks, "fusion": weight == most[case]}
