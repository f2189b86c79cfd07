"""Cases and the model that answers them, one row per case: what explanations are measured on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from eczema_tf.data.dataset import Dataset
from eczema_tf.data.inputs import Inputs, to_model_inputs
from eczema_tf.data.synthetic.ground_truth import GroundTruth, load_ground_truth
from eczema_tf.evaluation.intervals import Sampling, number_groups
from eczema_tf.explanation.one_pass import explain_in_one_pass
from eczema_tf.explanation.submodels import Submodels, select_logit
from eczema_tf.explanation.token_scores import TokenScores, score_tokens
from eczema_tf.schema import IMAGE
from eczema_tf.workflows.inference import draw_cases
from eczema_tf.workflows.run_folder import TrainedModel

TARGET = "eczema"  # what is explained: the logit of the answer from photo and text together
# tf-keras-vis keeps the whole image encoder in memory for its gradients, about 100 MB per photo
BATCH_ROWS = 8


class Explainer:
    """Explains and answers with graphs for any number of rows and tokens, each built once.

    Attributes:
        submodels: The parts of the model.
        encode_image: Turns photos, float32 (rows, size, size, 3), into their features.
        explain_photos: Turns inputs into the heatmaps that the served model shows, and the evidence
            behind them.
        answer: Turns features of photos, and the other inputs, into the logit of `TARGET`.
    """

    def __init__(self, submodels: Submodels) -> None:
        taken = submodels.model.input
        self._inputs = {name: tf.TensorSpec(x.shape, x.dtype) for name, x in taken.items()}
        texts = {name: spec for name, spec in self._inputs.items() if name != IMAGE}
        features = tf.TensorSpec([None, *submodels.features_shape])
        self.submodels = submodels
        self._scorers: dict[int, Callable[[dict[str, tf.Tensor]], TokenScores]] = {}
        self.encode_image = _build_graph(submodels.encode_image, self._inputs[IMAGE])
        self.explain_photos = _build_graph(self._explain_photos, self._inputs)
        self.answer = _build_graph(self._answer, features, texts)

    def score_tokens(self, inputs: dict[str, tf.Tensor], nodes: int) -> TokenScores:
        """Scores tokens as the served model does, with that many nodes."""
        if nodes not in self._scorers:
            score = partial(self._score_tokens, nodes=nodes)
            self._scorers[nodes] = _build_graph(score, self._inputs)
        return self._scorers[nodes](inputs)

    def _explain_photos(self, inputs: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        explained = explain_in_one_pass(self.submodels, inputs, TARGET)
        return explained.heatmap, explained.evidence.density

    def _score_tokens(self, inputs: dict[str, tf.Tensor], nodes: int) -> TokenScores:
        features = self.submodels.encode_image(inputs[IMAGE])
        text = self.submodels.encode_text(inputs)
        return score_tokens(self.submodels, features, text, inputs, TARGET, nodes)

    def _answer(self, features: tf.Tensor, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        text = self.submodels.encode_text(inputs)
        return select_logit(self.submodels.compute_logits(features, text, inputs), TARGET)


def _build_graph(function: Callable[..., Any], *specs: Any) -> Callable[..., Any]:
    return tf.function(function, input_signature=specs, autograph=False)


@dataclass(frozen=True)
class ExplainedCases:
    """Chosen cases and their model. Figures for them are float64 (cases,) arrays in this order.

    Attributes:
        trained: The trained model.
        explainer: Explains its answers; subsets of the cases share it.
        table: The cases' rows of the manifest, one per case; index 0..n-1.
        inputs: Inputs of the whole data set.
        rows: int64 (cases,), the cases' rows in `inputs`.
        ground_truth: What is known of the cases.
        sampling: Sampling of the cases.
    """

    trained: TrainedModel
    explainer: Explainer
    table: pd.DataFrame
    inputs: Inputs
    rows: np.ndarray
    ground_truth: GroundTruth
    sampling: Sampling

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def seed(self) -> int:
        """Seed of all random draws."""
        return self.trained.config.seed

    @cached_property
    def has_photo(self) -> np.ndarray:
        """Which cases have a photo: bool (cases,)."""
        return self.inputs.present("image")[self.rows]

    @cached_property
    def has_text(self) -> np.ndarray:
        """Which cases have a text: bool (cases,)."""
        return self.inputs.present("text")[self.rows]

    @cached_property
    def logits(self) -> np.ndarray:
        """What is explained: float64 (cases,)."""
        return self.contributions.sum(axis=1)

    def take(self, chosen: np.ndarray) -> "ExplainedCases":
        """Keeps only some cases."""
        return replace(
            self,
            table=self.table.iloc[chosen].reset_index(drop=True),
            rows=self.rows[chosen],
            sampling=self.sampling.where(chosen),
        )

    def gather(self, chosen: int | np.ndarray) -> dict[str, np.ndarray]:
        """Returns the model's inputs for one case or several, with a batch axis."""
        return self.inputs.gather(self.rows[np.atleast_1d(chosen)])

    def in_batches(self) -> list[np.ndarray]:
        """Returns the numbers of all cases, int64, `BATCH_ROWS` at a time."""
        return np.split(np.arange(len(self)), range(BATCH_ROWS, len(self), BATCH_ROWS))

    def predict_variants(self, case: int, changed: Mapping[str, np.ndarray]) -> np.ndarray:
        """Computes the logits of variants of one case.

        Its photo is encoded once, unless the photo is what varies.

        Args:
            case: Number of the case.
            changed: Inputs (variants, ...) that replace the case's own.

        Returns:
            float64 (variants,).
        """
        inputs = self.gather(case) | dict(changed)
        photos = inputs[IMAGE]
        blocks = [photos[start : start + BATCH_ROWS] for start in range(0, len(photos), BATCH_ROWS)]
        encode = self.explainer.encode_image
        inputs[IMAGE] = np.concatenate(
            [encode(tf.constant(block, tf.float32)).numpy() for block in blocks]
        )
        variants = len(next(iter(changed.values())))
        repeated = {
            name: tf.constant(np.broadcast_to(value, (variants, *value.shape[1:])))
            for name, value in inputs.items()
        }
        return self.explainer.answer(repeated.pop(IMAGE), repeated).numpy().astype("float64")

    @cached_property
    def contributions(self) -> np.ndarray:
        """As in `TokenScores`, in logits: float64 (cases, 3), with clinical fields (cases, 4)."""
        batches = (to_model_inputs(self.gather(chosen)) for chosen in self.in_batches())
        moved = [self.explainer.score_tokens(batch, 1).contributions.numpy() for batch in batches]
        return np.concatenate(moved).astype("float64")


def choose_cases(
    trained: TrainedModel,
    submodels: Submodels,
    dataset: Dataset,
    inputs: Inputs,
    rows: np.ndarray,
    cases: int,
) -> ExplainedCases:
    """Draws cases, and takes the first row of each.

    Args:
        trained: The trained model; its configuration's seed decides which cases are drawn.
        submodels: The parts of its model.
        dataset: The data set, with or without ground truth next to its manifest.
        inputs: Inputs of the whole data set.
        rows: int64, the rows to choose from.
        cases: How many cases at most.
    """
    drawn = draw_cases(dataset, rows, cases, trained.config.seed)
    table = dataset.table.iloc[drawn].reset_index(drop=True)
    return ExplainedCases(
        trained=trained,
        explainer=Explainer(submodels),
        table=table,
        inputs=inputs,
        rows=drawn,
        ground_truth=load_ground_truth(dataset.manifest.path),
        sampling=Sampling(number_groups(table["group_id"])),
    )
