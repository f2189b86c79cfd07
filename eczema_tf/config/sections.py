"""The sections of a configuration and their keys, with the defaults: the quickstart's."""

import warnings
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from eczema_tf.config.section import Section

Positive = Annotated[int, Field(gt=0, lt=2**31)]
Count = Annotated[int, Field(ge=0, lt=2**32)]  # as NumPy's seeds
Share = Annotated[float, Field(ge=0, le=1)]
Threshold = Annotated[float, Field(ge=0, lt=1)]  # of a share that is above it
Rate = Annotated[float, Field(gt=0)]
Amount = Annotated[float, Field(ge=0)]
Inner = Annotated[float, Field(gt=0, lt=1)]  # a share that is neither none nor all
ColumnName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_ -]{0,39}$")]
MAX_TOKENS = 512  # of a text: as many positions as BERT has


class SyntheticConfig(Section):
    """The built-in data, used when `data.manifest` is null."""

    cases: Positive = 3000  # with photos and texts, for all three splits
    texts: Count = 6000  # further cases, of a text alone, all of them for training
    seed: Count = 0  # of all random draws
    # the set is made once, in <folder>/synthetic-<cases>-<texts>-<seed>-v<generator>/
    folder: str = "data"


class DataConfig(Section):
    """Which cases, and when a soft label counts as positive."""

    manifest: str | None = None  # null: the built-in data
    embeddings: str | None = None  # .npz of photo embeddings that stand in for the photos
    label_threshold: Threshold = 0.5  # in metrics, a case is positive when its label is above this
    skip_bad_rows: bool = False  # leave them out, and write them beside the manifest
    # cases that share a photo or a long text, exactly or nearly, become one group
    merge_duplicates: bool = True
    # true: splits that leak are recorded in every report instead of refused; --allow-leaks sets it
    allow_leaks: bool = False
    # what else the model is told: columns of the manifest and what they hold, number or category,
    # such as {age: number, sex: category}; what a cell or a client leaves
    # empty is not known
    clinical: dict[ColumnName, Literal["number", "category"]] = Field(default={})
    synthetic: SyntheticConfig = SyntheticConfig()

    def _find_faults(self) -> Iterator[str]:
        if len({name.casefold() for name in self.clinical}) < len(self.clinical):
            # `age=5` in a row of a client would be either
            yield "clinical: names that differ in capital letters alone: rename a column"

    @model_validator(mode="before")
    @classmethod
    def _accept_old_name(cls, values: Any) -> Any:
        old, new = "positive_above", "label_threshold"
        if not isinstance(values, dict) or old not in values or new in values:
            return values
        warnings.warn(
            f"data.{old} is called data.{new} now; the old name still works",
            FutureWarning,
            stacklevel=2,
        )
        return {new if key == old else key: value for key, value in values.items()}


class SplitConfig(Section):
    """Shares of the groups in each split, for rows whose split the manifest leaves empty.

    In a cross-validation val is the share of the groups outside the fold; train and test say
    nothing.
    """

    train: Share = 0.7  # of the groups
    val: Share = 0.15  # chooses epoch, thresholds and bounds
    test: Share = 0.15  # judges
    # cross-validation instead: out-of-fold predictions over all cases
    folds: Annotated[int, Field(ge=2)] | None = None
    repeats: Positive = 1  # of the cross-validation, each with other folds

    def _find_faults(self) -> Iterator[str]:
        if abs(self.train + self.val + self.test - 1) > 1e-6:
            yield (
                f"train + val + test must be 1, received {self.train} + {self.val} + {self.test}"
            )
        if self.repeats > 1 and self.folds is None:
            yield f"repeats: {self.repeats} are of a cross-validation, which needs split.folds"
        if self.folds and self.val == 0:
            yield "val: must be above 0 with split.folds: it chooses the thresholds of each fold"


class ColorConstancyConfig(Section):
    """Shades of gray (Finlayson and Trezzi 2004).

    The illuminant is the Minkowski norm of the photo.
    """

    enabled: bool = True  # false: the colours of the photo as they are
    norm: Annotated[float, Field(ge=1)] = 6.0  # 6 is the best of the paper's figure 1


class AugmentConfig(Section):
    """Random changes to a training photo; 0 turns one off.

    On the built-in photos flips alone are best (docs/log.md).
    """

    flip: bool = True  # left-right and up-down
    rotation_deg: Annotated[float, Field(ge=0, le=180)] = 0.0  # at most, either way
    crop: Annotated[float, Field(ge=0, le=0.5)] = 0.0  # largest share of a side cut off
    # largest relative change of brightness, contrast and saturation
    color: Annotated[float, Field(ge=0, le=1)] = 0.0
    blur: Share = 0.0  # share of the photos that are blurred
    # side of the erased square as a share of the photo's
    cutout: Annotated[float, Field(ge=0, le=0.5)] = 0.0


class PreprocessConfig(Section):
    """What happens to a photo before the encoder."""

    color_constancy: ColorConstancyConfig = ColorConstancyConfig()
    augment: AugmentConfig = AugmentConfig()


class EncoderConfig(Section):
    """What the image and the text encoder have in common."""

    @model_validator(mode="before")
    @classmethod
    def _let_the_default_give_way(cls, values: Any) -> Any:
        """An encoder that is named another way stands in for the default preset."""
        named = {"architecture", "saved_model"}
        if isinstance(values, dict) and any(values.get(key) is not None for key in named):
            return {"preset": None, **values}
        return values


class ImageConfig(EncoderConfig):
    """The image encoder."""

    # packaged weights, local preset folder, KerasHub name, Hugging Face folder (docs/encoders.md);
    # null: a network from scratch
    preset: str | None = "efficientnet_lite0_imagenet"
    architecture: Literal["small", "efficientnet", "vit", "deit"] = "small"  # from scratch only
    # null: the encoder's own size, or 96 from scratch
    size_px: Annotated[int, Field(gt=0, le=4096)] | None = None
    # instead of a preset: a SavedModel folder or TensorFlow Hub handle, one embedding a photo
    saved_model: str | None = None
    # what it takes (docs/encoders.md); null: as its signature says
    saved_model_input: Literal["pixels", "bytes", "example"] | None = None
    # whether heads are told the texture of the encoder's inner maps, too (docs/encoders.md)
    textures: bool = False

    def _find_faults(self) -> Iterator[str]:
        chosen = (self.preset is not None, self.saved_model is not None)
        if sum(chosen) + (self.architecture != "small") > 1:
            yield "preset, saved_model and architecture each name the encoder; give one of them"
        if self.saved_model_input and self.saved_model is None:
            yield f"saved_model_input: {self.saved_model_input} is of a saved_model; give that, too"


class TextConfig(EncoderConfig):
    """The text encoder."""

    # as for the image; null: a network from scratch, its vocabulary learned from the training split
    preset: str | None = "all_minilm_l6_v2_en"
    architecture: Literal["small", "bert"] = "small"  # from scratch only
    # how many of a preset's transformer layers, from the first on; null: all
    layers: Positive | None = None
    # the outputs of so many of a preset's last layers, side by side, or of all it has
    last_layers: Positive = 3
    # longer texts are cut, and their rows say so
    max_tokens: Annotated[int, Field(ge=8, le=MAX_TOKENS)] = MAX_TOKENS
    vocabulary_size: Annotated[int, Field(ge=50)] = 2000  # from scratch only
    # mean: of the encoder's tokens (sentence embedding; where findings are learned, of windows of
    # four tokens); mean_max: with their maximum beside it;
    # max: of trained phrase detectors
    pooling: Literal["mean", "mean_max", "max"] = "mean"

    def _find_faults(self) -> Iterator[str]:
        if self.preset is not None and self.architecture != "small":
            yield "preset and architecture each name the encoder; give one of them"


class ModelConfig(Section):
    """Encoders, fusion and heads."""

    image: ImageConfig = ImageConfig()
    text: TextConfig = TextConfig()
    # how photo and text come together (docs/encoders.md)
    fusion: Literal["concat", "gated", "cross_attention", "late"] = "concat"
    # width of each modality's projection; 0: none, and the heads are linear in the pooled features
    embedding_units: Count = 64
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3  # in the heads
    # share of the training rows that lose one of two modalities
    modality_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    # share of a text's windows of four tokens that a training step does not see, where findings
    # are learned
    window_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2

    def _find_faults(self) -> Iterator[str]:
        if not self.embedding_units and (self.fusion != "late" or self.text.pooling == "max"):
            yield (
                "embedding_units 0 (linear heads) needs fusion: late and text.pooling: mean or"
                f" mean_max, which have no hidden layer either, received fusion: {self.fusion} and"
                f" text.pooling: {self.text.pooling}"
            )


class FineTuneConfig(Section):
    """Second stage: the encoders from a chosen layer on, at a lower rate, batch norm frozen."""

    epochs: Count = 0  # at most; 0: no fine-tuning
    learning_rate: Rate = 0.00002  # the peak
    # name of the first layer to train, or how it begins; null: the encoder stays frozen
    image_from: str | None = None
    text_from: str | None = None  # likewise
    # of the first layer that is trained, as a share of the learning rate; it rises from layer to
    # layer by a constant factor (discriminative fine-tuning: Howard and Ruder 2018)
    lowest_rate: Annotated[float, Field(gt=0, le=1)] = 1.0
    # of what is added to the query and value weights of these layers, whose own weights then stay
    # as they are (LoRA: Hu et al. 2022); 0: the layers' own weights are trained
    lora_rank: Count = 0
    # so many augmented views of each photo are encoded up to `image_from` once and learned from in
    # turn; 0: a new view in every epoch, through all layers
    views: Count = 0

    def _find_faults(self) -> Iterator[str]:
        if self.views and self.image_from is None:
            yield f"views needs image_from, received views: {self.views} without it"
        if self.image_from is None and self.text_from is None:
            for name in ("epochs", "lora_rank"):
                if value := getattr(self, name):
                    need = "image_from or text_from"
                    yield f"{name} needs {need}, received {name}: {value} without them"


class LossWeights(Section):
    """How much each head counts in the total loss."""

    eczema_image: Amount = 0.5  # from the photo alone
    eczema_text: Amount = 0.5  # from the text alone
    eczema: Amount = 1.0  # from both
    # an easier question than eczema, and what its answer needs is what eczema needs
    consistency: Amount = 1.0
    # of the manifest's findings, if it names any: a sum over all of them
    findings: Amount = 0.1
    # at 0.3 the text went unread: docs/log.md
    severity_image: Amount = 0.5
    severity_text: Amount = 0.5  # likewise
    severity: Amount = 1.0  # from both


class TrainConfig(Section):
    """The optimisation."""

    epochs: Positive = 12  # of the heads, at most
    batch_size: Positive = 32  # rows
    learning_rate: Rate = 0.001  # the peak: linear warm-up, then a cosine down to 0
    warmup_epochs: Amount = 1.0  # may be a fraction
    weight_decay: Amount = 0.0001  # of AdamW
    clip_norm: Rate = 1.0  # of all gradients together
    # last: all epochs, whose rate falls to nothing; best: the epoch with the best validation AUROC
    # of the fusion head, which is chance where validation has few cases, and no matter to grades
    keep: Literal["best", "last"] = "last"
    # thresholds chosen, train anew on train and val together; needs keep: last
    refit: bool = False
    patience: Positive = 10  # of keep: best, epochs without a better one
    balance_classes: bool = True  # for training; probabilities are moved back afterwards
    soft_labels: bool = True  # false: train on the yes or no of data.label_threshold
    # share of the training texts that are followed by one that says nothing (labelled unclear),
    # drawn anew in each epoch; only where findings are learned and the text encoder is frozen
    small_talk: Share = 0.5
    loss_weights: LossWeights = LossWeights()
    # features of frozen encoders are computed once; false: for each run anew
    cache_features: bool = True
    cache_folder: str = "cache"  # of pixels and features; several runs may share it
    mixed_precision: Literal["auto", "on", "off"] = "auto"  # auto: on with a GPU
    # auto: on with a GPU; on CPU it is about 6 times slower
    xla: Literal["auto", "on", "off"] = "auto"
    # also record the finished run in MLflow's store beside the run folder; needs
    # requirements-mlflow.txt
    mlflow: bool = False
    fine_tune: FineTuneConfig = FineTuneConfig()
    # folder of a finished run whose model is kept: these data only say what is to be added to its
    # answers; `model` must be that run's
    base_run: str | None = None

    def _find_faults(self) -> Iterator[str]:
        if self.base_run is not None and self.fine_tune.epochs:
            yield (
                "base_run keeps a model as it is, so that nothing of it can be fine-tuned: leave"
                f" out one of the two, received fine_tune.epochs: {self.fine_tune.epochs}"
            )
        if self.refit and self.keep != "last":
            yield (
                "refit leaves no validation to choose an epoch by: it needs keep: last, received"
                f" keep: {self.keep}"
            )


class EvaluateConfig(Section):
    """The metrics."""

    # of macro F1, kappa and errors in grades; the rest has closed forms
    bootstrap_replicates: Annotated[int, Field(ge=100)] = 1000
    # predictive values are also given for these; of adults up to one in ten has eczema, of children
    # one in five (Langan, Irvine and Weidinger 2020)
    prevalences: list[Inner] = Field(default=[0.1, 0.2])
    # that operating points are to reach, besides the one with the highest sum of both
    sensitivities: list[Inner] = Field(default=[0.9, 0.95])
    specificities: list[Inner] = Field(default=[0.9])  # likewise


class ExportConfig(Section):
    """The SavedModel at the end of `train`."""

    enabled: bool = True  # false: none is written
    folder: str = "saved_models/eczema"  # of all versions


class Config(Section):
    """A whole run."""

    seed: Count = 0  # of splits, initial weights and the order of training
    data: DataConfig = DataConfig()
    split: SplitConfig = SplitConfig()
    preprocess: PreprocessConfig = PreprocessConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    export: ExportConfig = ExportConfig()
