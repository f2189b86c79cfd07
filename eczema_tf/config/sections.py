"""The sections of a configuration and their keys, with the quickstart's values as defaults."""

import warnings
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from eczema_tf.config.section import Section

Positive = Annotated[int, Field(gt=0, lt=2**31)]
Count = Annotated[int, Field(ge=0, lt=2**32)]  # the range of NumPy's seeds
Share = Annotated[float, Field(ge=0, le=1)]
Threshold = Annotated[float, Field(ge=0, lt=1)]  # for shares above it
Rate = Annotated[float, Field(gt=0)]
Amount = Annotated[float, Field(ge=0)]
Inner = Annotated[float, Field(gt=0, lt=1)]  # a share that is neither none nor all
ColumnName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_ -]{0,39}$")]
MAX_TOKENS = 512  # per text: BERT has as many positions


class SyntheticConfig(Section):
    """The built-in data, used when `data.manifest` is null."""

    cases: Positive = 3000  # cases with photos and texts, for all three splits
    texts: Count = 6000  # further cases with only a text, all of them for training
    seed: Count = 0  # seed of all random draws
    # the data set is made once, in <folder>/synthetic-<cases>-<texts>-<seed>-v<generator>/
    folder: str = "data"


class DataConfig(Section):
    """Which cases are used, and when a soft label counts as positive."""

    manifest: str | None = None  # null: the built-in data
    embeddings: str | None = None  # .npz file of photo embeddings to use instead of the photos
    label_threshold: Threshold = 0.5  # in metrics, a case is positive when its label is above this
    # true: leave bad rows out, and write them to a file next to the manifest
    skip_bad_rows: bool = False
    # cases that share a photo or a long text, exactly or nearly, become one group
    merge_duplicates: bool = True
    # true: splits that leak are recorded in every report instead of refused; --allow-leaks sets it
    allow_leaks: bool = False
    # clinical fields: further columns of the manifest that the model uses, and whether each is a
    # number or a category, such as {age: number, sex: category}; what a cell or a client leaves
    # empty counts as not known
    clinical: dict[ColumnName, Literal["number", "category"]] = Field(default={})
    synthetic: SyntheticConfig = SyntheticConfig()

    def _find_faults(self) -> Iterator[str]:
        if len({name.casefold() for name in self.clinical}) < len(self.clinical):
            # `age=5` in a client's row could mean either
            yield "clinical: names that differ only in capital letters: rename a column"

    @model_validator(mode="before")
    @classmethod
    def _accept_old_name(cls, values: Any) -> Any:
        old, new = "positive_above", "label_threshold"
        if not isinstance(values, dict) or old not in values or new in values:
            return values
        warnings.warn(
            f"data.{old} is now called data.{new}; the old name still works",
            FutureWarning,
            stacklevel=2,
        )
        return {new if key == old else key: value for key, value in values.items()}


class SplitConfig(Section):
    """Shares of the groups in each split, for rows whose split the manifest leaves empty.

    In a cross-validation, val is a share of the groups outside the fold; train and test have no
    effect.
    """

    train: Share = 0.7  # share for training
    val: Share = 0.15  # share for choosing the epoch, thresholds and bounds
    test: Share = 0.15  # share for the final evaluation
    # number of folds of a cross-validation, which predicts all cases out of fold; null: none
    folds: Annotated[int, Field(ge=2)] | None = None
    repeats: Positive = 1  # how often the cross-validation is run, each time with other folds

    def _find_faults(self) -> Iterator[str]:
        if abs(self.train + self.val + self.test - 1) > 1e-6:
            yield (
                f"train + val + test must be 1, received {self.train} + {self.val} + {self.test}"
            )
        if self.repeats > 1 and self.folds is None:
            yield f"repeats: {self.repeats} needs a cross-validation: set split.folds, too"
        if self.folds and self.val == 0:
            yield "val: must be above 0 with split.folds: each fold's thresholds are chosen on it"


class ColorConstancyConfig(Section):
    """Shades of gray (Finlayson and Trezzi 2004).

    The illuminant is the Minkowski norm of the photo.
    """

    enabled: bool = True  # false: the photo keeps its colours
    norm: Annotated[float, Field(ge=1)] = 6.0  # 6 is the best value in the paper's figure 1


class AugmentConfig(Section):
    """Random changes to a training photo; 0 turns one off.

    On the built-in photos, flips without the other changes are best (docs/log.md).
    """

    flip: bool = True  # flips left-right and up-down
    rotation_deg: Annotated[float, Field(ge=0, le=180)] = 0.0  # largest angle, in either direction
    crop: Annotated[float, Field(ge=0, le=0.5)] = 0.0  # largest share of a side that is cut off
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
        """Lets an encoder that is named in another way replace the default preset."""
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
    # instead of a preset: a SavedModel folder or TensorFlow Hub handle, one embedding per photo
    saved_model: str | None = None
    # what the SavedModel takes (docs/encoders.md); null: as its signature says
    saved_model_input: Literal["pixels", "bytes", "example"] | None = None
    # whether the heads also get the textures of the encoder's inner maps (docs/encoders.md)
    textures: bool = False

    def _find_faults(self) -> Iterator[str]:
        chosen = (self.preset is not None, self.saved_model is not None)
        if sum(chosen) + (self.architecture != "small") > 1:
            yield "preset, saved_model and architecture each name the encoder; give one of them"
        if self.saved_model_input and self.saved_model is None:
            yield f"saved_model_input: {self.saved_model_input} needs a saved_model; give that, too"


class TextConfig(EncoderConfig):
    """The text encoder."""

    # as for images; null: a network from scratch, its vocabulary learned from the training split
    preset: str | None = "all_minilm_l6_v2_en"
    architecture: Literal["small", "bert"] = "small"  # from scratch only
    # how many of a preset's transformer layers to use, counted from the first; null: all
    layers: Positive | None = None
    # how many of a preset's last layers (all if it has fewer) give their outputs, side by side
    last_layers: Positive = 3
    # longer texts are cut, and their rows say so
    max_tokens: Annotated[int, Field(ge=8, le=MAX_TOKENS)] = MAX_TOKENS
    vocabulary_size: Annotated[int, Field(ge=50)] = 2000  # from scratch only
    # mean: the mean of the encoder's tokens (a sentence embedding; where findings are learned, the
    # mean of windows of four tokens); mean_max: the mean and the maximum of the tokens; max: the
    # maximum of trained phrase detectors
    pooling: Literal["mean", "mean_max", "max"] = "mean"

    def _find_faults(self) -> Iterator[str]:
        if self.preset is not None and self.architecture != "small":
            yield "preset and architecture each name the encoder; give one of them"


class ModelConfig(Section):
    """Encoders, fusion and heads."""

    image: ImageConfig = ImageConfig()
    text: TextConfig = TextConfig()
    # how photo and text are combined (docs/encoders.md)
    fusion: Literal["concat", "gated", "cross_attention", "late"] = "concat"
    # width of each modality's projection; 0: none, and the heads are linear in the pooled features
    embedding_units: Count = 64
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3  # dropout rate in the heads
    # share of the training rows with both modalities that lose one of them
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
        if self.image.textures and self.fusion == "cross_attention":
            yield "image.textures: true needs another fusion than cross_attention, received both"


class FineTuneConfig(Section):
    """Second stage: the encoders from a chosen layer on, at a lower rate, batch norm frozen."""

    epochs: Count = 0  # at most; 0: no fine-tuning
    learning_rate: Rate = 0.00002  # the peak of the learning rate
    # name of the first layer to train, or how its name begins; null: the encoder stays frozen
    image_from: str | None = None
    text_from: str | None = None  # the same for the text encoder
    # rate of the first layer that is trained, as a share of the learning rate; the rate rises from
    # layer to layer by a constant factor (discriminative fine-tuning: Howard and Ruder 2018)
    lowest_rate: Annotated[float, Field(gt=0, le=1)] = 1.0
    # rank of what is added to the query and value weights of these layers, whose own weights then
    # stay as they are (LoRA: Hu et al. 2022); 0: the layers' own weights are trained
    lora_rank: Count = 0
    # number of augmented views of each photo that are encoded once, up to `image_from`, and learned
    # from in turn; 0: a new view in every epoch, through all layers
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
    # an easier question than eczema, and its answer needs what the answer on eczema needs
    consistency: Amount = 1.0
    # the manifest's findings, if it names any: a sum over all of them
    findings: Amount = 0.1
    # from the photo alone; at 0.3 the text went unread (docs/log.md)
    severity_image: Amount = 0.5
    severity_text: Amount = 0.5  # the same from the text alone
    severity: Amount = 1.0  # from both


class TrainConfig(Section):
    """The optimisation."""

    epochs: Positive = 12  # most epochs of training the heads
    batch_size: Positive = 32  # rows per batch
    # the peak of the learning rate: linear warm-up, then cosine decay to 0
    learning_rate: Rate = 0.001
    warmup_epochs: Amount = 1.0  # length of the warm-up; may be a fraction
    weight_decay: Amount = 0.0001  # of AdamW
    clip_norm: Rate = 1.0  # largest norm of all gradients together
    # last: the model after all epochs, over which the learning rate falls to 0; best: the epoch
    # with the best validation AUROC of the fusion head, which is a matter of chance if validation
    # has few cases, and does not consider grades
    keep: Literal["best", "last"] = "last"
    # true: once thresholds are chosen, train again on train and val together; needs keep: last
    refit: bool = False
    patience: Positive = 10  # with keep: best, epochs without a better one before training stops
    # whether both classes count alike in training; probabilities are moved back afterwards
    balance_classes: bool = True
    soft_labels: bool = True  # false: train on the yes or no that data.label_threshold gives
    # share of the training texts that are followed by a text that says nothing (labelled unclear),
    # drawn again in each epoch; only where findings are learned and the text encoder is frozen
    small_talk: Share = 0.5
    loss_weights: LossWeights = LossWeights()
    # features of frozen encoders are computed once; false: again for each run
    cache_features: bool = True
    cache_folder: str = "cache"  # folder for pixels and features; several runs may share it
    mixed_precision: Literal["auto", "on", "off"] = "auto"  # auto: on with a GPU
    # auto: on with a GPU; on CPU it is about 6 times slower
    xla: Literal["auto", "on", "off"] = "auto"
    # true: also record the finished run in MLflow's store next to the run folder; needs
    # requirements-mlflow.txt
    mlflow: bool = False
    fine_tune: FineTuneConfig = FineTuneConfig()
    # folder of a finished run whose model is kept as it is: these data only teach it what to add to
    # its answers; `model` must be that run's
    base_run: str | None = None

    def _find_faults(self) -> Iterator[str]:
        if self.base_run is not None and self.fine_tune.epochs:
            yield (
                "base_run keeps a model as it is, so nothing of it can be fine-tuned: leave out one"
                f" of the two, received fine_tune.epochs: {self.fine_tune.epochs}"
            )
        if self.refit and self.keep != "last":
            yield (
                "refit leaves no validation split to choose an epoch on: it needs keep: last,"
                f" received keep: {self.keep}"
            )


class EvaluateConfig(Section):
    """The metrics."""

    # for macro F1, kappa and errors in grades; the other intervals have closed forms
    bootstrap_replicates: Annotated[int, Field(ge=100)] = 1000
    # predictive values are also given for these; up to one in ten adults and one in five children
    # has eczema (Langan, Irvine and Weidinger 2020)
    prevalences: list[Inner] = Field(default=[0.1, 0.2])
    # sensitivities that operating points should reach, besides the point with the highest sum of
    # sensitivity and specificity
    sensitivities: list[Inner] = Field(default=[0.9, 0.95])
    specificities: list[Inner] = Field(default=[0.9])  # the same for specificities


class ExportConfig(Section):
    """The SavedModel at the end of `train`."""

    enabled: bool = True  # false: no SavedModel is written
    folder: str = "saved_models/eczema"  # folder for all versions of the model


class Config(Section):
    """A whole run."""

    seed: Count = 0  # seed of splits, initial weights and the order of training
    data: DataConfig = DataConfig()
    split: SplitConfig = SplitConfig()
    preprocess: PreprocessConfig = PreprocessConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    export: ExportConfig = ExportConfig()
