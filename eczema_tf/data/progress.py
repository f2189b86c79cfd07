"""Progress bars for what takes more than a few seconds."""

from collections.abc import Iterable

from tqdm import tqdm

TRACKED_STEPS = 500  # below, it is over before a bar could be read


def track(steps: Iterable | None, name: str, total: int, *, slow: bool = False) -> tqdm:
    """Shows a bar while something is done: on a terminal alone, and not for a few quick steps.

    Args:
        steps: What is done one by one; None if the caller says how far it is (`update`).
        name: What the steps are.
        total: How many they are.
        slow: Whether a step takes so long that a few are worth a bar.
    """
    quick = total < TRACKED_STEPS and not slow
    hidden = True if quick else None  # None: unless it is no terminal
    return tqdm(steps, name, total, disable=hidden, mininterval=1)
