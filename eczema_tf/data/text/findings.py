"""What texts are known to say: the manifest's `findings`, as labels to learn from."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from eczema_tf.schema import NO_FINDINGS

SEPARATOR = ";"
FEWEST_TEXTS = 20  # that must mention a finding for it to be learned
MOST_FINDINGS = 512  # learned at most: the most frequent ones


def join_findings(names: Iterable[str]) -> str:
    """Writes a cell of the manifest: the names in order, each once."""
    return SEPARATOR.join(sorted(set(names))) or NO_FINDINGS


def split_findings(cell: str) -> set[str]:
    """Reads a cell of the manifest; "" (not known) and "none" give none."""
    names = {name.strip() for name in cell.split(SEPARATOR)}
    return names - {"", NO_FINDINGS}


def choose_findings(cells: Iterable[str]) -> tuple[str, ...]:
    """Lists the findings that are mentioned often enough to be learned, in alphabetical order.

    Args:
        cells: The cells of distinct training texts.
    """
    counts = Counter(name for cell in cells for name in sorted(split_findings(cell)))
    often = [name for name, count in counts.most_common(MOST_FINDINGS) if count >= FEWEST_TEXTS]
    return tuple(sorted(often))


def encode_findings(cells: Sequence[str], findings: Sequence[str]) -> np.ndarray:
    """Says which findings each text names.

    Args:
        cells: Cells of the manifest, one per row.
        findings: The names, one per column.

    Returns:
        float32 (rows, findings), 0 or 1; zeros where nothing is known.
    """
    column = {name: index for index, name in enumerate(findings)}
    said = np.zeros((len(cells), len(findings)), "float32")
    for row, cell in enumerate(cells):
        said[row, [column[name] for name in split_findings(cell) if name in column]] = 1
    return said
