"""Progress bars for work that takes more than a few seconds."""

from collections.abc import Iterable

from tqdm import tqdm

TRACKED_STEPS = 500  # fewer are done before a bar could be read


def track(steps: Iterable | None, name: str, total: int, *, slow: bool = False) -> tqdm:
    """Shows a progress bar, only on a terminal and not for a few quick steps.

    Args:
        steps: The steps to go through; None if the caller reports progress (`update`).
        name: What the steps are.
        total: How many there are.
        slow: Whether a step takes so long that a few are worth a bar.
    """
    quick = total < TRACKED_STEPS and not slow
    hidden = True if quick else None  # None: hidden unless on a terminal
    return tqdm(steps, name, total, disable=hidden, mininterval=1)
