"""A SavedModel in this process: what local prediction, the web server, batch scoring and the benchmarks run."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eczema_tf.errors import EczemaError
from eczema_tf.serving.client import find_version, read_side_file

SERVE, EXPLAIN = "serving_default", "explain"  # signatures


class LoadedModel:
    """An exported model, ready to be asked.

    Attributes:
        folder: Of the version that was loaded.
        version: Its number; 0 if the folder is not named by one.
        side: Thresholds, labels, notice and versions, as written at export.
    """

    def __init__(self, folder: Path, signatures: Sequence[str] = (SERVE, EXPLAIN)):
        """Loads a version.

        Args:
            folder: A version's folder, or the folder of all versions (the newest is taken).
            signatures: Those that will be asked for.

        Raises:
            EczemaError: If the folder holds no SavedModel of this project, or it lacks a signature.
        """
        import tensorflow as tf
        import tensorflow_text  # noqa: F401  (registers the tokenizer's ops)

        self.folder = find_version(folder)
        self.version = int(self.folder.name) if self.folder.name.isdigit() else 0
        self.side: dict[str, Any] = read_side_file(self.folder)
        try:
            self._model = tf.saved_model.load(str(self.folder))  # must outlive its signatures
            self._signatures = {name: self._model.signatures[name] for name in signatures}
        except (OSError, ValueError, KeyError) as error:
            raise EczemaError(
                f"{folder}: cannot be loaded as a SavedModel: {str(error).splitlines()[0]}"
            ) from error

    def warm_up(self, rows: int = 2) -> None:
        """Runs every signature, on the largest photos that the guard lets in.

        The first run of a graph takes seconds, which is not to be at the first client's expense.
        And what memory TensorFlow once had for tensors it keeps (with oneDNN: a pool that only
        grows): so the process has its full size from the start, and where there is too little, that
        shows now and not under load.

        Args:
            rows: Photos at once, as many as are decoded at the same time.
        """
        from eczema_tf.serving.graph.guard import MAX_PIXELS

        side_px = int(MAX_PIXELS**0.5)
        buffer = io.BytesIO()
        Image.new("RGB", (side_px, side_px)).save(buffer, "PNG", compress_level=1)
        for signature in self._signatures:
            self.run([buffer.getvalue()] * rows, ["warm"] * rows, signature)

    def run(
        self, images: Sequence[bytes], texts: Sequence[str], signature: str = SERVE
    ) -> dict[str, np.ndarray]:
        """Asks for some rows at once.

        Args:
            images: Upright JPEG or PNG bytes; b"" for none.
            texts: As long as `images`; "" for none.
            signature: `SERVE` or `EXPLAIN`.

        Returns:
            The signature's outputs by name, one row each; strings are bytes.
        """
        import tensorflow as tf

        encoded = [text.encode("utf-8", "replace") for text in texts]
        outputs = self._signatures[signature](
            image=tf.constant(list(images), tf.string), text=tf.constant(encoded, tf.string)
        )
        return {name: value.numpy() for name, value in outputs.items()}
