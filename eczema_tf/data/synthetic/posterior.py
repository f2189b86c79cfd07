"""The exact P(eczema) given what was drawn: Bayes' rule over the hidden states, no approximation.

P(state | attributes, facts) is proportional to P(state) * prod P(attribute | state)
* prod P(fact | state). Which facts are mentioned, the wording and how a photo is lit do not depend
on the state, so they cancel. No model that sees photo and text can rank cases better.
"""

import numpy as np

from eczema_tf.data.synthetic.tables import ECZEMA, UNSEEN, Slot, Tables


def compute_log_likelihood(slots: tuple[Slot, ...], codes: np.ndarray) -> np.ndarray:
    """Computes log P(codes | state).

    Args:
        slots: The tables of the codes' columns.
        codes: int (cases, slots), indices into each slot's values; `UNSEEN` says nothing.

    Returns:
        float64 (cases, states).
    """
    total = np.zeros((len(codes), len(slots[0].probability)))
    for slot, column in zip(slots, codes.T, strict=True):
        total += np.where((column == UNSEEN)[:, None], 0.0, np.log(slot.probability.T[column]))
    return total


def compute_eczema_posterior(tables: Tables, *log_likelihoods: np.ndarray) -> np.ndarray:
    """Computes P(eczema | evidence).

    Args:
        tables: From `load_tables`.
        *log_likelihoods: float64 (cases, states) each, from independent evidence.

    Returns:
        float64 (cases,) in 0..1.
    """
    log_joint = np.log(tables.prior) + sum(log_likelihoods)
    joint = np.exp(log_joint - log_joint.max(axis=1, keepdims=True))
    is_eczema = np.array([condition == ECZEMA for condition, _ in tables.states])
    return joint[:, is_eczema].sum(axis=1) / joint.sum(axis=1)
