"""Makes one model from data and splits: encoders and tokenizer, training, thresholds.

All of it goes into a run folder.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from eczema_tf.cli import say
from eczema_tf.config import AugmentConfig, Config
from eczema_tf.data.audit.overlap import note_seen
from eczema_tf.data.clinical.fields import Field, find_telling, learn_fields
from eczema_tf.data.dataset import Dataset, count_cases
from eczema_tf.data.distributions import describe_inputs
from eczema_tf.data.inputs import Inputs, to_model_inputs
from eczema_tf.data.text.findings import choose_findings
from eczema_tf.data.text.reading import choose_unknown_limit
from eczema_tf.data.text.tokenizer import learn_tokenizer, load_tokenizer
from eczema_tf.evaluation.thresholds import Thresholds, choose_bounds, choose_thresholds
from eczema_tf.explanation.neutral_text import find_neutral_text
from eczema_tf.explanation.photo_evidence import measure_scale
from eczema_tf.explanation.submodels import Submodels, Tensors
from eczema_tf.files import write_csv, write_json
from eczema_tf.model.decision import KINDS
from eczema_tf.model.encoders import (
    load_preset_weights,
    specify_image_encoder,
    specify_text_encoder,
)
from eczema_tf.model.features import frozen_encoders
from eczema_tf.model.multimodal import ENCODER_LAYERS, Encoders, build_model
from eczema_tf.model.probe import probe_encoder
from eczema_tf.model.weights.packaged import find_preset
from eczema_tf.reporting.facts import RunData
from eczema_tf.schema import FINDINGS, SIDE, SPLITS
from eczema_tf.training.data import build_training_data
from eczema_tf.training.device import leave_mixed_precision, prepare_device
from eczema_tf.training.stages import History, Judged, train_model, try_fine_tuning
from eczema_tf.workflows import run_folder
from eczema_tf.workflows.base_run import BaseRun, build_on, check_base, load_base
from eczema_tf.workflows.inference import load_model_inputs, predict_cases

# texts that are averaged into a text that says nothing: how many at most, how many at once, and
# how many labelled unclear are enough
NEUTRAL_TEXTS, NEUTRAL_BATCH, MIN_UNCLEAR = 512, 32, 20
# photos of eczema that show how much evidence is usual: how many at most, how many at once, and
# how many are enough
SCALE_PHOTOS, SCALE_BATCH, MIN_PHOTOS = 96, 8, 20


def check_encoders(config: Config) -> None:
    """Tries the encoders before anything is spent on data, and says where each comes from.

    Raises:
        PresetError: If one is not available.
        ConfigError: If one does not fit the configuration, or does not encode.
    """
    image, text = config.model.image, config.model.text
    any_length = 1 if config.data.embeddings else None
    base = load_base(config)
    model = base.trained if base else _build_untrained(config, any_length, ["itchy"])
    names = {
        # embeddings replace photos, whatever else is named
        "image": config.data.embeddings or image.preset or image.saved_model or image.architecture,
        "text": text.preset or text.architecture,
    }
    for modality, name in names.items():
        spec = getattr(model.encoders, modality)
        say(f"{modality} encoder: {name}, {spec.source}")
        probe_encoder(model.model, modality, name)
    tuning = config.train.fine_tune
    if tuning.epochs:
        try_fine_tuning(model.model, model.encoders, tuning)
    elif tuning.image_from or tuning.text_from:
        say("note: nothing is fine-tuned, since train.fine_tune.epochs is 0")
    frozen = "image" in frozen_encoders(config.train, model.encoders)
    if frozen and config.preprocess.augment != AugmentConfig():
        say(
            "note: preprocess.augment has no effect, since the image encoder stays frozen; to train"
            " it, too, set train.fine_tune.epochs and train.fine_tune.image_from"
        )


def fit_run(
    config: Config, dataset: Dataset, splits: pd.Series, run_dir: Path
) -> tuple[run_folder.TrainedModel, Inputs, Thresholds]:
    """Trains one model and chooses its thresholds, which makes it a whole run.

    With `train.refit`, a first model's thresholds, and how far its fusion trusts photo and text,
    are chosen on validation. The run's own model is then trained again, for as long, on training
    and validation rows together (Goodfellow, Bengio and Courville 2016, algorithm 7.2).

    Args:
        config: Configuration of the run.
        dataset: All rows.
        splits: The split of each row.
        run_dir: Gets the model and its thresholds.

    Returns:
        The model, the inputs of all rows, and the thresholds.
    """
    refit, first_dir = config.train.refit, run_dir
    if refit:
        first_dir = run_dir / run_folder.BEFORE_REFIT
        run_folder.write_start(first_dir, config)
    trained, inputs, history = train_run(config, dataset, splits, first_dir)
    cases = predict_cases(trained, dataset, inputs, np.flatnonzero(splits == "val"))
    thresholds = choose_thresholds(cases, config.data.label_threshold)
    bounds = choose_bounds(cases, thresholds, config.data.label_threshold)
    write_json(run_dir / run_folder.THRESHOLDS, thresholds)
    write_csv(run_dir / run_folder.VALIDATION, cases)
    if refit:
        both = splits.replace("val", "train")
        # with the same detectors: thresholds and limits of another network would not fit
        findings = trained.encoders.findings
        trained, inputs, _ = train_run(config, dataset, both, run_dir, history.judged, findings)
    layer = trained.model.get_layer(SIDE)
    layer.low.assign([bounds[kind][0] for kind in KINDS])
    layer.high.assign([bounds[kind][1] for kind in KINDS])
    run_folder.save_model(run_dir, trained)
    return trained, inputs, thresholds


def note_neutral_text(
    trained: run_folder.TrainedModel, training: pd.DataFrame, inputs: Inputs, run_dir: Path
) -> None:
    """Finds the baseline from which word scores start, and writes it into the run folder.

    Args:
        trained: The model.
        training: Rows of the data set that it learned from. Those labelled unclear are averaged; if
            there are fewer than `MIN_UNCLEAR`, all of them are.
        inputs: Inputs of the whole data set.
        run_dir: The model's run folder.
    """
    told = training[training["text"] != ""]
    unclear = told[told["consistency"] == "unclear"]
    enough = len(unclear) >= MIN_UNCLEAR
    if not enough and len(told) >= MIN_UNCLEAR:
        say(
            f"words are scored against an average text, since only {len(unclear)} texts are"
            " labelled unclear"
        )
    rows = (unclear if enough else told).index
    batches = _draw_batches(trained, inputs, rows, NEUTRAL_TEXTS, NEUTRAL_BATCH)
    run_folder.save_neutral_text(run_dir, find_neutral_text(Submodels(trained.model), batches))


def note_evidence_scale(
    trained: run_folder.TrainedModel, validation: pd.DataFrame, inputs: Inputs, run_dir: Path
) -> None:
    """Measures how much evidence heatmaps of eczema show, and writes it into the run folder.

    Args:
        trained: The model.
        validation: Rows of the data set that it has not learned from (except with `train.refit`).
        inputs: Inputs of the whole data set.
        run_dir: The model's run folder.
    """
    eczema = validation["eczema"] > trained.config.data.label_threshold
    rows = validation.index[eczema & (validation["image_path"] != "")]
    if len(rows) < MIN_PHOTOS:
        say(
            f"heatmaps: {len(rows)} photos of positive validation cases are too few to choose how"
            f" much evidence a heatmap needs ({MIN_PHOTOS} are enough)"
        )
        rows = rows[:0]
    batches = _draw_batches(trained, inputs, rows, SCALE_PHOTOS, SCALE_BATCH)
    scale = measure_scale(Submodels(trained.model), batches)
    write_json(run_dir / run_folder.EVIDENCE, scale._asdict())


def _draw_batches(
    trained: run_folder.TrainedModel, inputs: Inputs, rows: pd.Index, most: int, size: int
) -> Iterator[Tensors]:
    """Draws rows with the run's seed, and yields the model's inputs of them in batches."""
    drawn = np.random.default_rng(trained.config.seed).permutation(np.array(rows))[:most]
    for start in range(0, len(drawn), size):
        yield to_model_inputs(inputs.gather(drawn[start : start + size]))


def train_run(
    config: Config,
    dataset: Dataset,
    splits: pd.Series,
    run_dir: Path,
    judged: Judged | None = None,
    findings: tuple[str, ...] | None = None,
) -> tuple[run_folder.TrainedModel, Inputs, History]:
    """Trains one model and saves it.

    Args:
        config: Configuration of the run.
        dataset: All rows.
        splits: The split of each row; "train" is learned from, "val" decides when to stop.
        run_dir: Gets the model, the checkpoints and the TensorBoard logs.
        judged: As in `train_model`.
        findings: Those to detect; None for those that enough training texts mention.

    Returns:
        The model with its best weights, the inputs of all rows, and its history on training and
        validation.
    """
    run_data, training = _describe_splits(dataset, splits), dataset.table[splits == "train"]
    run_folder.check_data(run_dir, run_data)
    prepare_device(config.train, config.seed)
    dimension = dataset.embeddings.dimension if dataset.embeddings is not None else None
    clinical, texts = learn_fields(training, config.data.clinical), list(training["text"])
    note_telling(config, training)
    base = load_base(config)
    if base:
        check_base(base, dataset)
        trained = build_on(base, config, texts, clinical)
    else:
        chosen = _choose_findings(training) if findings is None else findings
        trained = _build_untrained(config, dimension, texts, chosen, clinical)
    run_folder.unseal(run_dir)
    run_folder.save_encoders(run_dir, trained.encoders, trained.tokenizer)
    trained_on = list_modalities(training, base)
    trained = replace(trained, learned_from=trained.learned_from.union(trained_on))
    inputs = load_model_inputs(trained, dataset)
    learned = {
        "trained_on": trained_on,
        "inputs": describe_inputs(dataset, inputs, np.flatnonzero(splits == "train")),
        "seen": note_seen(dataset, splits.isin(["train", "val"]).to_numpy()),
        # without recording which row was in which split
        "base": base.data.model_copy(update={"splits": None, "folds": None}) if base else None,
    }
    run_data.model_copy(update=learned).write(run_dir / run_folder.DATA)
    detected = () if base else trained.encoders.findings
    data = build_training_data(config, dataset.table, inputs, splits, detected)
    history = train_model(trained.model, trained.encoders, data, config, run_dir, judged)
    run_folder.save_model(run_dir, trained)
    if leave_mixed_precision():
        trained = run_folder.load_model(run_dir)  # as `evaluate` and `export` rebuild it
    return trained, inputs, history


def _choose_findings(training: pd.DataFrame) -> tuple[str, ...]:
    return choose_findings(training.drop_duplicates(["case_id", "text"]).get(FINDINGS, []))


def list_modalities(training: pd.DataFrame, base: BaseRun | None) -> list[str]:
    """Lists the modalities to learn from; a base run gets none that it has not learned from."""
    given = {"image": training["image_path"], "text": training["text"]}
    there = [modality for modality, values in given.items() if (values != "").any()]
    known = [name for name in there if base is None or name in base.trained.learned_from]
    for name in {*there} - {*known}:
        say(f"note: train.base_run has not learned from the {name}, which is left out")
    return known


def _describe_splits(dataset: Dataset, splits: pd.Series) -> RunData:
    rows = {split: dataset.table[splits == split] for split in SPLITS}
    return RunData(
        **dict(dataset.describe()),
        split_counts={split: count_cases(own) for split, own in rows.items()},
        splits={split: list(own["example_id"]) for split, own in rows.items()},
    )


def note_telling(config: Config, training: pd.DataFrame) -> None:
    """Says which clinical fields give the label away by whether they are known."""
    label = training["eczema"]
    positive = (label > config.data.label_threshold).to_numpy()
    telling = find_telling(training, config.data.clinical, positive, label.notna().to_numpy())
    for name, (with_label, without) in telling.items():
        say(
            f"note: data.clinical: {name} is known for {with_label:.0%} of the positive training"
            f" rows and {without:.0%} of the others; cases in use may differ from both"
        )


def _build_untrained(
    config: Config,
    embedding_dimension: int | None,
    training_texts: list[str],
    findings: tuple[str, ...] = (),
    clinical: tuple[Field, ...] = (),
) -> run_folder.TrainedModel:
    """Builds encoders, tokenizer and model, and loads the presets' weights."""
    image, text = config.model.image, config.model.text
    image_encoder = specify_image_encoder(image, embedding_dimension)
    if text.preset is not None:
        text_encoder = specify_text_encoder(text, 0)  # first: says how to provide a preset
        tokenizer = load_tokenizer(find_preset(text.preset).location, text.max_tokens)
    else:
        tokenizer = learn_tokenizer(training_texts, text.vocabulary_size, text.max_tokens)
        text_encoder = specify_text_encoder(text, len(tokenizer.vocabulary))
    tokenizer.unknown_limit = choose_unknown_limit(tokenizer, training_texts)
    encoders = Encoders(image_encoder, text_encoder, findings, clinical)
    model = build_model(config.model, encoders)
    if image.preset is not None and embedding_dimension is None:
        load_preset_weights(model.get_layer(ENCODER_LAYERS["image"]), image.preset)
    if text.preset is not None:
        load_preset_weights(model.get_layer(ENCODER_LAYERS["text"]), text.preset)
    return run_folder.TrainedModel(config, encoders, tokenizer, model, frozenset())
