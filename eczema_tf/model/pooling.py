"""Which rows of a case speak for it, in training, evaluation and serving."""

from collections.abc import Mapping

import numpy as np

from eczema_tf.schema import MODALITIES


def find_speaking_rows(
    cases: np.ndarray, used: Mapping[str, np.ndarray], known: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Finds the rows whose log-odds are averaged for their case; one rule wherever rows are pooled.

    Several photos of a case are averaged as evidence of one kind, since each is noisy. But an input
    that is unlike all training data is only noise: a photo (or text) that is not known says nothing
    about its case if another one is known. For photo and text together, the rows with the most to
    go on speak. A row without a photo has no opinion on the photos of other rows and must not
    dilute theirs, and a row with an input that says nothing is worth less than one without it.

    Args:
        cases: (rows,), equal for the rows of one case.
        used: By `MODALITIES`, bool (rows,): what each row has.
        known: By `MODALITIES`, bool (rows,): which of it is like training; never true where `used`
            is not. The same as `used` if that cannot be told.

    Returns:
        By modality and "fusion", bool (rows,). In each case, some row speaks for fusion, and for a
        modality if any row has it.
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
