"""Hyperparameter search with Optuna: trials that share data, splits and cached features.

A folder holds the study: `study.log` (Optuna's journal, which makes a study resumable), a run
folder for each trial with its HParams for TensorBoard, `trials.csv` and `best.yaml`. The test split
is dropped from the data set before the first trial.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import optuna
import pandas as pd
import tensorflow as tf
import yaml
from optuna.storages.journal import JournalFileBackend
from pydantic import BaseModel, ConfigDict, ValidationError
from tensorboard.plugins.hparams import api as hparams

from eczema_tf.config import Config, dump_config, parse_config, read_yaml
from eczema_tf.data.dataset import Dataset
from eczema_tf.errors import ConfigError, join_faults
from eczema_tf.files import write_csv, write_text
from eczema_tf.workflows import run_folder
from eczema_tf.workflows.audit import load_audited
from eczema_tf.workflows.fit import train_run
from eczema_tf.workflows.train import find_manifest, split_dataset

OBJECTIVE = "val_auroc_fusion"
JOURNAL, TRIALS, BEST = "study.log", "trials.csv", "best.yaml"

Choice = str | int | float | bool | None


class Range(BaseModel):
    """Numbers between two bounds, both included."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    low: int | float
    high: int | float
    log: bool = False


class Choices(BaseModel):
    """Values to choose from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    values: tuple[Choice, ...]


Space = dict[str, Range | Choices]


@dataclass(frozen=True)
class Study:
    """What a search found: one row a finished trial, best first."""

    trials: pd.DataFrame
    folder: Path

    def describe(self) -> str:
        """Returns the best trials as a table, and where the winner's configuration is."""
        table = self.trials.head(10).to_string(
            index=False, float_format=lambda value: f"{value:.4g}"
        )
        return (
            f"{table}\nbest configuration: {self.folder / BEST} (validation chooses, it does not"
            " prove: train it and see its test split)"
        )


def load_space(path: Path) -> Space:
    """Reads which keys to vary.

    Args:
        path: YAML lines `section.key: [choices]` or `section.key: {low, high, log}`.

    Raises:
        ConfigError: With every fault, if there is any.
    """
    space: Space = {}
    faults: list[str] = []
    for key, allowed in read_yaml(path).items():
        try:
            if isinstance(allowed, list) and allowed:
                space[key], values = Choices(values=tuple(allowed)), allowed
            else:
                bounds = Range.model_validate(allowed)
                space[key], values = bounds, [bounds.low, bounds.high]
                if not bounds.low < bounds.high:
                    received = f"{bounds.low} and {bounds.high}"
                    faults.append(f"{key}: low must be less than high, received {received}")
        except ValidationError:
            faults.append(
                f"{key}: allowed: [choices] or {{low: ..., high: ..., log: true|false}}, received"
                f" {allowed!r}"
            )
            continue
        for value in values:  # each must be a valid configuration by itself
            try:
                override(Config(), {key: value})
            except ConfigError as error:
                faults.append(" ".join(str(error).split()))
    if faults or not space:
        title = f"{path} is not a search space"
        raise ConfigError(join_faults(title, faults or ["it varies nothing"]))
    return space


def override(config: Config, values: Mapping[str, Choice]) -> Config:
    """Returns a configuration with some keys, such as "train.epochs", set to other values.

    Raises:
        ConfigError: If the result is not valid.
    """
    changed = config.model_dump()
    for key, value in values.items():
        *sections, last = key.split(".")
        section = changed
        for name in sections:
            section = section.setdefault(name, {})
        section[last] = value
    return parse_config(changed)


def search(config: Config, space: Space, trials: int, folder: Path) -> Study:
    """Runs trials until a study has enough finished ones.

    Args:
        config: What all trials share.
        space: From `load_space`.
        trials: Finished trials to reach, those of earlier calls included.
        folder: Of the study.

    Returns:
        All finished trials.

    Raises:
        ConfigError: If the folder holds a study of another space or configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _check_study(folder, config, space)
    dataset, splits = load_without_test(config)
    journal = JournalFileBackend(str(folder / JOURNAL))
    study = optuna.create_study(
        study_name="study",
        storage=optuna.storages.JournalStorage(journal),
        load_if_exists=True,
        direction="maximize",
    )
    # a resumed study must not propose the same again
    study.sampler = optuna.samplers.TPESampler(seed=config.seed + len(study.trials))

    def run_trial(trial: optuna.Trial) -> float:
        chosen = {key: _suggest(trial, key, allowed) for key, allowed in space.items()}
        trial_config = override(config, chosen)
        run_dir = folder / f"trial-{trial.number:04d}"
        run_folder.write_start(run_dir, trial_config)
        *_, history = train_run(trial_config, dataset, splits, run_dir)
        best = history.best(OBJECTIVE)
        with tf.summary.create_file_writer(str(run_dir / "tensorboard" / "hparams")).as_default():
            hparams.hparams(chosen, trial_id=run_dir.name)
            tf.summary.scalar(OBJECTIVE, best, step=0)
        return best

    finished = [optuna.trial.TrialState.COMPLETE]
    while len(study.get_trials(states=finished)) < trials:
        study.optimize(run_trial, n_trials=1)
    ranked = sorted(study.get_trials(states=finished), key=lambda trial: -(trial.value or 0.0))
    table = pd.DataFrame(
        [{"trial": trial.number, OBJECTIVE: trial.value, **trial.params} for trial in ranked]
    )
    write_csv(folder / TRIALS, table)
    write_text(folder / BEST, dump_config(override(config, ranked[0].params)))
    return Study(table, folder)


def load_without_test(config: Config) -> tuple[Dataset, pd.Series]:
    """Loads the data, splits it as `train` would, and drops every row of the test split."""
    audited = load_audited(config.data, find_manifest(config))
    dataset, splits = audited.dataset, split_dataset(config, audited.dataset)
    audited.check(splits)
    kept = (splits != "test").to_numpy()
    table = dataset.table[kept].reset_index(drop=True)
    dataset = replace(dataset, manifest=replace(dataset.manifest, table=table))
    return dataset, splits[kept].reset_index(drop=True)


def _suggest(trial: optuna.Trial, key: str, allowed: Range | Choices) -> Choice:
    if isinstance(allowed, Choices):
        return trial.suggest_categorical(key, allowed.values)
    if isinstance(allowed.low, int) and isinstance(allowed.high, int):
        return trial.suggest_int(key, allowed.low, allowed.high, log=allowed.log)
    return trial.suggest_float(key, allowed.low, allowed.high, log=allowed.log)


def _check_study(folder: Path, config: Config, space: Space) -> None:
    """A study continues only what it was started with: trials of two spaces cannot be compared."""
    plain = {
        key: list(allowed.values) if isinstance(allowed, Choices) else allowed.model_dump()
        for key, allowed in space.items()
    }
    texts = {
        "config.yaml": dump_config(config),
        "space.yaml": yaml.safe_dump(plain, sort_keys=False),
    }
    for name, text in texts.items():
        file = folder / name
        if file.is_file() and file.read_text(encoding="utf-8") != text:
            raise ConfigError(
                f"{folder}: holds a study with another {name}; give another --out, or continue that"
                " one"
            )
        write_text(file, text)
