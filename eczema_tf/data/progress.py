"""Progress bars for what takes more than a few seconds."""

from collections.abc import Iterable

from tqdm import tqdm

TRACKED_STEPS = 500  # below, it is over before a bar could be read


def track(steps: Iterable | None, name: str, total: int) -> tqdm:
    """Shows a bar while something is done: on a terminal alone, and not for a few steps.

    Args:
        steps: What is done one by one; None if the caller says how far it is (`update`).
        name: What the steps are.
        total: How many they are.
    """
    hidden = True if total < TRACKED_STEPS else None  # None: unless it is no terminal
    return tqdm(steps, name, total, disable=hidden, mininterval=1)
