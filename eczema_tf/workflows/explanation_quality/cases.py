"""Cases of a data set and the model that answers them, one row a case: what the figures of explanations are measured on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from eczema_tf.data.inputs import Inputs
from eczema_tf.data.synthetic.ground_truth import GroundTruth
from eczema_tf.explanation.one_pass import explain_in_one_pass
from eczema_tf.explanation.submodels import Submodels, select_logit
from eczema_tf.schema import IMAGE, IMAGE_PRESENT, TEXT_PRESENT, TOKEN_IDS
from eczema_tf.workflows.run_folder import TrainedModel

TARGET = "eczema"  # what is explained: the logit of the answer from photo and text together
BATCH_ROWS = (
    8  # tf-keras-vis remembers the whole image encoder for its gradients, some 100 MB a photo
)


@dataclass(frozen=True)
class ExplainedCases:
    """Chosen cases and their model. Figures of them are float64 (cases,) arrays in this order.

    Attributes:
        trained: Trained.
        submodels: Its model, taken apart where explanations take gradients.
        table: The cases' rows of the manifest, one a case; index 0..n-1.
        inputs: Of the whole data set.
        rows: int64 (cases,), the cases' rows in `inputs`.
        truth: What is known of them.
        seed: Of all that is drawn for them.
    """

    trained: TrainedModel
    submodels: Submodels
    table: pd.DataFrame
    inputs: Inputs
    rows: np.ndarray
    truth: GroundTruth
    seed: int

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def has_photo(self) -> np.ndarray:
        """Which cases have a photo: bool (cases,)."""
        return self.inputs.columns[IMAGE_PRESENT].gather(self.rows) > 0

    @cached_property
    def has_text(self) -> np.ndarray:
        """Which cases have a text: bool (cases,)."""
        return self.inputs.columns[TEXT_PRESENT].gather(self.rows) > 0

    @cached_property
    def is_eczema(self) -> np.ndarray:
        """Which cases are labelled eczema: bool (cases,)."""
        return (self.table["eczema"] > self.trained.config.data.label_threshold).to_numpy(bool)

    @cached_property
    def logits(self) -> np.ndarray:
        """What is explained: float64 (cases,)."""
        return self.predict({})

    def take(self, chosen: np.ndarray) -> "ExplainedCases":
        """Leaves only some cases."""
        return replace(
            self, table=self.table.iloc[chosen].reset_index(drop=True), rows=self.rows[chosen]
        )

    def gather(self, chosen: int | np.ndarray) -> dict[str, np.ndarray]:
        """The model's inputs of one case or of some, with a batch axis."""
        return self.inputs.gather(self.rows[np.atleast_1d(chosen)])

    def in_batches(self) -> list[np.ndarray]:
        """All cases, int64, `BATCH_ROWS` at a time."""
        return [
            np.arange(start, min(start + BATCH_ROWS, len(self)))
            for start in range(0, len(self), BATCH_ROWS)
        ]

    def predict(self, changed: Mapping[str, float]) -> np.ndarray:
        """Computes the logit of every case.

        Args:
            changed: Inputs that are set to one value in all cases.

        Returns:
            float64 (cases,).
        """
        logits = []
        for chosen in self.in_batches():
            batch = self.gather(chosen)
            batch |= {name: np.full_like(batch[name], value) for name, value in changed.items()}
            logits.append(self._answer(self._encode(batch[IMAGE]), batch))
        return np.concatenate(logits)

    def predict_variants(self, case: int, changed: Mapping[str, np.ndarray]) -> np.ndarray:
        """Computes the logits of variants of one case; its photo is encoded once, unless it is what varies.

        Args:
            case: Which.
            changed: Inputs (variants, ...) instead of the case's own.

        Returns:
            float64 (variants,).
        """
        inputs = self.gather(case) | dict(changed)
        features = self._encode(inputs.pop(IMAGE))
        variants = len(next(iter(changed.values())))
        repeated = {
            name: np.broadcast_to(value, (variants, *value.shape[1:]))
            for name, value in inputs.items()
        }
        return self._answer(np.broadcast_to(features, (variants, *features.shape[1:])), repeated)

    def _encode(self, photos: np.ndarray) -> np.ndarray:
        blocks = [photos[start : start + BATCH_ROWS] for start in range(0, len(photos), BATCH_ROWS)]
        return np.concatenate(
            [self._image_encoder(tf.constant(block, tf.float32)).numpy() for block in blocks]
        )

    def _answer(self, features: np.ndarray, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        tensors = {name: tf.constant(value) for name, value in inputs.items() if name != IMAGE}
        return self._heads(tf.constant(features), tensors).numpy().astype("float64")

    @cached_property
    def explain_photos(self) -> Callable[[dict[str, tf.Tensor]], tf.Tensor]:
        """Computes the heatmaps that the served model gives, from a batch of inputs: float32 (batch, rows, columns)."""
        return tf.function(
            lambda inputs: explain_in_one_pass(self.submodels, inputs, TARGET).heatmap,
            reduce_retracing=True,
        )

    @cached_property
    def _image_encoder(self) -> Callable[[tf.Tensor], tf.Tensor]:
        return tf.function(self.submodels.encode_image, reduce_retracing=True)

    @cached_property
    def _heads(self) -> Callable[[tf.Tensor, dict[str, tf.Tensor]], tf.Tensor]:
        def answer(features: tf.Tensor, inputs: dict[str, Any]) -> tf.Tensor:
            embeddings = self.submodels.embed_tokens(inputs[TOKEN_IDS])
            return select_logit(self.submodels.compute_logits(features, embeddings, inputs), TARGET)

        return tf.function(answer, reduce_retracing=True)
