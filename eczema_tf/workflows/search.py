"""Hyperparameter search over a declared space: what `search` runs.

Optuna proposes settings; a trial trains with them on the training split and is judged on
validation. All files of a study are in one folder: `study.log` (Optuna's journal, which makes a
study resumable), a run folder for each trial with its HParams for TensorBoard, `trials.csv` and
`best.yaml`. The test split is dropped from the data set before the first trial.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import chain, islice, product
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import tensorflow as tf
import yaml
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from pydantic import TypeAdapter, ValidationError
from tensorboard.plugins.hparams import api as hparams

from eczema_tf.config import Config, Section, change_config, dump_config, read_yaml
from eczema_tf.data.dataset import FINGERPRINTS, Dataset
from eczema_tf.errors import ConfigError, raise_if_any, shorten
from eczema_tf.files import refusing, write_csv, write_text
from eczema_tf.workflows import run_folder
from eczema_tf.workflows.audit import load_audited
from eczema_tf.workflows.base_run import list_seen_by_base
from eczema_tf.workflows.fit import check_encoders, train_run
from eczema_tf.workflows.train import find_manifest, split_dataset

OBJECTIVE = "val_auroc_fusion"
# all trials train on data that are loaded and split once, and are judged only on validation
VARIED = ("model", "train", "preprocess", "seed")
CORNERS = 1000  # how many combinations of a space are checked before the first trial, at most
JOURNAL, TRIALS, BEST = "study.log", "trials.csv", "best.yaml"
SHOWN_TRIALS = 10

Setting = bool | int | float | str | None


class Range(Section):
    """Numbers between two bounds, both included; whole ones if both bounds are."""

    low: int | float
    high: int | float
    log: bool = False

    def _find_faults(self) -> Iterator[str]:
        if not self.low < self.high:
            yield f"low must be less than high, received {self.low} and {self.high}"
        if self.log and self.low <= 0:
            yield f"log: true needs a low above 0, received {self.low}"


Space = dict[str, Range | list[Setting]]  # by dotted key of the configuration; a list gives choices


def search(config: Config, space_file: Path, trials: int, folder: Path) -> None:
    """Runs trials until a study has enough finished ones, and prints the best of them.

    Args:
        config: What all trials share.
        space_file: For `load_space`.
        trials: How many finished trials to reach, including those of earlier calls.
        folder: Folder of the study.

    Raises:
        ConfigError: If the space is wrong, if there are no epochs or no validation split to compare
            trials by, or if the folder contains a study with another space, configuration or data,
            whose trials cannot be compared.
    """
    space = load_space(space_file, config)
    _check_comparable(config, space)
    started_with = {
        "config.yaml": dump_config(config),
        "space.yaml": yaml.safe_dump(TypeAdapter(Space).dump_python(space), sort_keys=False),
    }
    _check_study(started_with, folder)
    check_encoders(config)
    dataset, splits = load_without_test(config)
    data = dataset.describe().model_dump(include={*FINGERPRINTS})
    started_with["data.yaml"] = yaml.safe_dump(data)
    _check_study(started_with, folder)
    for name, text in started_with.items():  # only now: what is wrong above can still be fixed
        write_text(folder / name, text)
    journal = JournalFileBackend(str(folder / JOURNAL))
    study = optuna.create_study(
        study_name="study",
        storage=optuna.storages.JournalStorage(journal),
        load_if_exists=True,
        direction="maximize",
    )
    # a resumed study must not propose the same again
    study.sampler = optuna.samplers.TPESampler(seed=(config.seed + len(study.trials)) % 2**32)
    while len(finished := study.get_trials(states=[TrialState.COMPLETE])) < trials:
        trial = study.ask()
        try:
            score = _run_trial(trial, config, space, dataset, splits, folder)
        except BaseException:
            study.tell(trial, state=TrialState.FAIL)
            raise
        study.tell(trial, score)
        print(f"trial {trial.number}: {OBJECTIVE} {score:.4g}")
    _write_best(config, finished, folder)


def _check_comparable(config: Config, space: Space) -> None:
    """Refuses what leaves no epochs, or no validation split, to compare trials by."""
    if config.train.base_run is not None or "train.base_run" in space:
        raise ConfigError(
            "train.base_run: a model that is kept has no epochs to compare trials by; leave the key"
            " out of a search"
        )
    if config.split.folds:
        raise ConfigError(
            "split.folds: trials are compared on one validation split; set it to null, received"
            f" {config.split.folds}"
        )


def _write_best(config: Config, finished: list[optuna.trial.FrozenTrial], folder: Path) -> None:
    """Writes and prints the table of finished trials, the best first, and its configuration."""
    ranked = sorted(finished, key=lambda trial: trial.values, reverse=True)
    table = pd.DataFrame(
        [{"trial": trial.number, OBJECTIVE: trial.value, **trial.params} for trial in ranked]
    )
    write_csv(folder / TRIALS, table)
    write_text(folder / BEST, dump_config(change_config(config, ranked[0].params)))
    print(table.head(SHOWN_TRIALS).to_string(index=False, float_format="{:.4g}".format))
    print(
        f"best configuration: {folder / BEST} (chosen on validation, which is no proof: train it"
        " and see its results on the test split)"
    )


def _check_study(started_with: Mapping[str, str], folder: Path) -> None:
    """Refuses to mix two studies."""
    for name, text in started_with.items():
        file = folder / name
        if file.is_file() and file.read_text(encoding="utf-8") != text:
            raise ConfigError(
                f"{folder}: contains a study with another {name}; give another --out, or continue"
                " with that one"
            )


def load_space(path: Path, config: Config) -> Space:
    """Reads which keys to vary.

    Args:
        path: YAML lines `section.key: [choices]` or `section.key: {low, high, log}`.
        config: What all trials share: every combination has to be valid together with it.

    Raises:
        ConfigError: If the space is not valid; the message lists every fault.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; give one that says which settings to vary")
    space: Space = {}
    faults = []
    for key, allowed in read_yaml(path).items():
        try:
            space |= TypeAdapter(Space).validate_python({key: allowed or None})
        except ValidationError as error:
            faults.append(f"{key}: {_describe_fault(error, allowed)}")
        if key.partition(".")[0] not in VARIED:
            faults.append(
                f"{key}: is the same for all trials; give it with --set. Keys that may vary begin"
                f" with {', '.join(VARIED)}"
            )
    if not faults:
        faults = [*_find_faults(config, space)] if space else ["it names no setting to vary"]
    raise_if_any(f"{path} is not a search space", faults, ConfigError)
    return space


def _describe_fault(error: ValidationError, allowed: object) -> str:
    """Says what is wrong with the bounds of a range, or what is allowed instead."""
    for each in error.errors():
        if each["type"] == "value_error":
            return each["msg"].removeprefix("Value error, ")
    return (
        "allowed: [choices] or {low: ..., high: ..., log: true|false}, received"
        f" {shorten(repr(allowed))}"
    )


def _find_faults(config: Config, space: Space) -> Iterator[str]:
    """Yields what is wrong with combinations of choices and ends of ranges, each fault once."""
    ends = [
        varied if isinstance(varied, list) else [varied.low, varied.high]
        for varied in space.values()
    ]
    first, faults = [values[0] for values in ends], set()
    # every value once, however many combinations there are, then at most CORNERS combinations
    alone = (
        [*first[:at], value, *first[at + 1 :]] for at, values in enumerate(ends) for value in values
    )
    for corner in chain(alone, islice(product(*ends), CORNERS)):
        try:
            change_config(config, dict(zip(space, corner, strict=True)))
        except ConfigError as error:
            faults.add(" ".join(str(error).split()))
    yield from sorted(faults)


def load_without_test(config: Config) -> tuple[Dataset, pd.Series]:
    """Loads the data, splits it as `train` would, and drops every row of the test split."""
    audited = load_audited(config.data, find_manifest(config))
    splits = split_dataset(config, audited.dataset)
    audited.check(splits, list_seen_by_base(config))
    kept = np.flatnonzero(splits != "test")
    return audited.dataset.take(kept), splits.iloc[kept].reset_index(drop=True)


def _run_trial(
    trial: optuna.Trial,
    config: Config,
    space: Space,
    dataset: Dataset,
    splits: pd.Series,
    folder: Path,
) -> float:
    chosen = {key: _suggest(trial, key, allowed) for key, allowed in space.items()}
    trial_config = change_config(config, chosen)
    run_dir = folder / f"trial-{trial.number:04d}"
    run_folder.write_start(run_dir, trial_config)
    *_, history = train_run(trial_config, dataset, splits, run_dir)
    score = history.kept(OBJECTIVE, trial_config.train.keep)
    place = run_dir / "tensorboard" / "hparams"
    with refusing(place), tf.summary.create_file_writer(str(place)).as_default():
        hparams.hparams(chosen, trial_id=run_dir.name)
        tf.summary.scalar(OBJECTIVE, score, step=0)
    return score


def _suggest(trial: optuna.Trial, key: str, allowed: Range | list[Setting]) -> Setting:
    if isinstance(allowed, list):
        return trial.suggest_categorical(key, allowed)
    whole = isinstance(allowed.low, int) and isinstance(allowed.high, int)
    suggest: Callable[..., float] = trial.suggest_int if whole else trial.suggest_float
    return suggest(key, allowed.low, allowed.high, log=allowed.log)
