"""Tests for the search over settings and for the ablation script."""

import importlib.util
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from eczema_tf import search, train
from eczema_tf.config import Config, change_config, dump_config, load_config
from eczema_tf.errors import ConfigError, DataError
from eczema_tf.files import write_text
from eczema_tf.workflows.search import Range, _suggest, load_space, load_without_test

pytestmark = pytest.mark.usefixtures("without_board")

ROOT = Path(__file__).parents[1]
SMOKE = ROOT / "configs" / "smoke.yaml"


def load_ablation():
    spec = importlib.util.spec_from_file_location("ablation", ROOT / "scripts" / "ablation.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def settings(folder: Path, manifest: Path) -> list[str]:
    values = {
        "data.manifest": manifest,
        "train.cache_folder": folder / "cache",
        "export.enabled": "false",
        "train.epochs": 1,
        "split.train": 0.5,
        "split.val": 0.25,
        "split.test": 0.25,
    }
    return [f"{key}={value}" for key, value in values.items()]


def test_every_bundled_space_is_valid_and_states_its_purpose():
    for path in (ROOT / "configs" / "search").glob("*.yaml"):
        assert load_space(path, Config())
        assert path.read_text().startswith("# Purpose: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it names no setting to vary"),
        ("train.learning_rte: [0.1]", "did you mean 'learning_rate'?"),
        ("model.fusion: [concat, sum]", "'sum'"),
        ("model.dropout: {low: 0.5, high: 0.1}", "low must be less than high"),
        ("model.dropout: {low: 0.5, high: 1.5}", "1.5"),
        ("model.dropout: {from: 0.5, to: 0.6}", "allowed: [choices]"),
        ("model.dropout: 0.5", "allowed: [choices]"),
        ("data.manifest: [a.csv, b.csv]", "data.manifest: is the same for all trials"),
        ("train.weight_decay: {low: 0, high: 0.1, log: true}", "a low above 0, received 0"),
        (
            "train.keep: [last, best]\ntrain.refit: [false, true]",
            "train: refit leaves no validation",
        ),
        pytest.param(f"model.dropout: {'x' * 5000}", f"received '{'x' * 150}", id="long"),
    ],
)
def test_invalid_space_is_refused_with_a_short_message(tmp_path: Path, text: str, message: str):
    (tmp_path / "space.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_space(tmp_path / "space.yaml", Config())
    assert message in str(caught.value)
    assert len(str(caught.value)) < 600


def test_space_is_validated_together_with_the_base_configuration(tmp_path: Path):
    (tmp_path / "space.yaml").write_text("model.embedding_units: [0, 8]\n")
    with pytest.raises(ConfigError, match="fusion"):
        load_space(tmp_path / "space.yaml", change_config(Config(), {"model.fusion": "gated"}))
    late = change_config(Config(), {"model.fusion": "late"})
    assert load_space(tmp_path / "space.yaml", late) == {"model.embedding_units": [0, 8]}


def test_every_value_of_a_large_space_is_checked(tmp_path: Path):
    parts = ("eczema_image", "eczema_text", "eczema", "consistency", "findings", "severity")
    weights = "".join(f"train.loss_weights.{part}: [0.1, 0.2, 0.3, 0.4]\n" for part in parts)
    (tmp_path / "space.yaml").write_text(f"model.fusion: [concat, sum]\n{weights}")
    with pytest.raises(ConfigError, match="'sum'"):
        load_space(tmp_path / "space.yaml", Config())


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("{low: 8, high: 64}", ("int", 8, 64, False)),
        ("{low: 8, high: 64, log: true}", ("int", 8, 64, True)),
        ("{low: 1, high: 64.5}", ("float", 1, 64.5, False)),
        ("{low: 0.1, high: 1, log: true}", ("float", 0.1, 1, True)),
    ],
)
def test_range_is_searched_in_whole_numbers_or_logarithms_as_asked(text: str, asked: tuple):
    class Trial:
        def suggest_int(self, key: str, low: int, high: int, *, log: bool = False) -> tuple:
            return "int", low, high, log

        def suggest_float(self, key: str, low: float, high: float, *, log: bool = False) -> tuple:
            return "float", low, high, log

    assert _suggest(Trial(), "key", Range(**yaml.safe_load(text))) == asked


def test_failed_trial_ends_the_study_with_a_one_line_error(
    tmp_path: Path,
    toy_manifest: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):
    def fail(*_):
        raise DataError("split val: has one class")

    monkeypatch.setattr("eczema_tf.workflows.search.train_run", fail)
    (tmp_path / "space.yaml").write_text("model.dropout: [0.1, 0.2]\n")
    sets = [part for text in settings(tmp_path, toy_manifest) for part in ("--set", text)]
    files = ["--space", str(tmp_path / "space.yaml"), "--out", str(tmp_path / "study")]
    assert search.main(["--config", str(SMOKE), *sets, *files, "--trials", "1"]) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert said.splitlines()[-1] == "error: split val: has one class"


def test_study_does_not_start_without_its_data(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "space.yaml").write_text("model.dropout: [0.1, 0.2]\n")
    files = ["--space", str(tmp_path / "space.yaml"), "--out", str(tmp_path / "study")]
    wrong = ["--set", f"data.manifest={tmp_path / 'missing.csv'}", *files, "--trials", "1"]
    assert search.main(["--config", str(SMOKE), *wrong]) == 1
    assert "missing.csv" in capsys.readouterr().err
    assert not (tmp_path / "study" / "config.yaml").exists()


def test_change_config_sets_dotted_keys_in_a_copy():
    base = Config()
    changed = change_config(base, {"train.epochs": 5, "seed": 6})
    assert (changed.train.epochs, changed.seed) == (5, 6)
    assert changed.train.batch_size == base.train.batch_size
    assert base == Config()
    with pytest.raises(ConfigError, match="did you mean 'epochs'"):
        change_config(base, {"train.epoch": 5})
    with pytest.raises(ConfigError, match="seed is a value, not a section"):
        change_config(changed, {"seed.x": 5})


def test_test_split_is_dropped_when_the_data_is_loaded(tmp_path: Path, toy_manifest: Path):
    config = load_config(SMOKE, settings(tmp_path, toy_manifest))
    dataset, splits = load_without_test(config)
    assert set(splits) == {"train", "val"}
    assert len(dataset.table) == len(splits) == 45
    assert list(dataset.table.index) == list(range(45))


def test_search_refuses_data_whose_splits_leak(tmp_path: Path, toy_manifest: Path):
    folder = Path(shutil.copytree(toy_manifest.parent, tmp_path / "data"))
    table = pd.read_csv(folder / "manifest.csv", dtype=str, keep_default_na=False)
    table["split"] = [("train", "val", "test")[row % 3] for row in range(len(table))]
    table.to_csv(folder / "manifest.csv", index=False)
    given = settings(tmp_path, folder / "manifest.csv")
    load_without_test(load_config(SMOKE, given))
    train, test = (
        folder
        / table[(table["split"] == split) & (table["image_path"] != "")]["image_path"].iloc[0]
        for split in ("train", "test")
    )
    shutil.copyfile(train, test)
    with pytest.raises(DataError, match="the splits leak"):
        load_without_test(load_config(SMOKE, given))


def test_search_refuses_a_cross_validation(tmp_path: Path, capsys: pytest.CaptureFixture):
    space, out = tmp_path / "space.yaml", tmp_path / "study"
    space.write_text("train.learning_rate: [0.1]\n")
    arguments = ["--config", str(SMOKE), "--set", "split.folds=3", "--space", str(space)]
    assert search.main([*arguments, "--out", str(out)]) == 1
    assert "split.folds: trials are compared on one validation split" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("where", ["configuration", "space"])
def test_search_refuses_a_base_run(tmp_path: Path, capsys: pytest.CaptureFixture, where: str):
    space, out = tmp_path / "space.yaml", tmp_path / "study"
    key = "train.base_run" if where == "space" else "train.learning_rate"
    space.write_text(f"{key}: [{'none' if where == 'space' else '0.1'}]\n")
    kept = ["--set", "train.base_run=none"] if where == "configuration" else []
    arguments = ["--config", str(SMOKE), *kept, "--space", str(space), "--out", str(out)]
    assert search.main(arguments) == 1
    assert "train.base_run: a model that is kept has no epochs" in capsys.readouterr().err
    assert not out.exists()


def test_study_resumes_and_refuses_other_data_or_another_space(
    tmp_path: Path, toy_manifest: Path, capsys: pytest.CaptureFixture
):
    space, out = tmp_path / "space.yaml", tmp_path / "study"
    space.write_text(
        "train.learning_rate: {low: 1.0e-3, high: 1.0e-2, log: true}\nmodel.embedding_units: [8,"
        " 16]\n"
    )
    sets = [
        argument for setting in settings(tmp_path, toy_manifest) for argument in ("--set", setting)
    ]
    arguments = ["--config", str(SMOKE), *sets, "--space", str(space), "--out", str(out)]
    assert search.main([*arguments, "--trials", "1"]) == 0
    first = pd.read_csv(out / "trials.csv")
    assert search.main([*arguments, "--trials", "2"]) == 0
    trials = pd.read_csv(out / "trials.csv")
    assert len(first) == 1
    assert sorted(trials["trial"]) == [0, 1]
    assert trials["val_auroc_fusion"].is_monotonic_decreasing
    assert set(first["train.learning_rate"]) < set(trials["train.learning_rate"])
    best = yaml.safe_load((out / "best.yaml").read_text())
    assert best["model"]["embedding_units"] == trials["model.embedding_units"].iloc[0]
    assert len(list((out / "trial-0001" / "tensorboard" / "hparams").glob("events*"))) == 1
    known = yaml.safe_load((out / "data.yaml").read_text())
    (out / "data.yaml").write_text(yaml.safe_dump({**known, "manifest_fingerprint": "of others"}))
    assert search.main([*arguments, "--trials", "3"]) == 1
    assert "contains a study with another data.yaml" in capsys.readouterr().err
    space.write_text("model.embedding_units: [8, 16]\n")
    assert search.main([*arguments, "--trials", "3"]) == 1
    assert "contains a study with another space.yaml" in capsys.readouterr().err


def test_ablation_writes_a_table_with_a_row_for_each_run(
    tmp_path: Path, toy_manifest: Path, capsys: pytest.CaptureFixture
):
    ablation, out = load_ablation(), tmp_path / "ablation"
    sets = [
        argument for setting in settings(tmp_path, toy_manifest) for argument in ("--set", setting)
    ]
    assert (
        ablation.main(
            ["--config", str(SMOKE), *sets, "--vary", "model.fusion=concat,late", "--out", str(out)]
        )
        == 0
    )
    lines = (out / "ablation.md").read_text().splitlines()
    assert lines[0].startswith("| model.fusion |")
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| concat", "| late"]
    assert lines[2].endswith("| - |")
    both = [pd.read_csv(out / name / "predictions.csv") for name in ("concat", "late")]
    assert both[0]["case_id"].tolist() == both[1]["case_id"].tolist() != []
    assert both[0]["p_fusion"].tolist() != both[1]["p_fusion"].tolist()
    metrics = pd.read_json(out / "late" / "metrics.json", typ="series")
    assert f"{metrics['heads']['fusion']['auroc']['value']:.3f} [" in lines[3]
    assert "concat" in capsys.readouterr().out


def test_ablation_keeps_its_runs_in_its_folder_and_refuses_other_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    ablation, out, started = load_ablation(), tmp_path / "out", []
    preset = tmp_path / "preset"
    preset.mkdir()
    (preset / "model.weights.h5").write_text("precious")
    monkeypatch.setattr(ablation, "train", lambda _, run_dir, resume: started.append(run_dir))
    vary = ["--vary", f"model.text.preset={preset},{tmp_path}/../b", "--out", str(out)]
    with pytest.raises(DataError):  # no run has left predictions
        ablation.main(["--config", str(SMOKE), *vary, "--debug"])
    assert len({*started}) == 2
    assert {run_dir.parent for run_dir in started} == {out}
    same = ["--vary", "model.text.preset=a/b,a_b", "--out", str(out)]
    assert ablation.main(["--config", str(SMOKE), *same]) == 1
    assert "must differ in letters or digits" in capsys.readouterr().err

    (out / "late").mkdir(parents=True)
    write_text(out / "late" / "config.yaml", dump_config(Config()))
    vary = ["--vary", "model.fusion=concat,late", "--out", str(out)]
    assert ablation.main(["--config", str(SMOKE), *vary]) == 1
    assert "late: was started with another configuration" in capsys.readouterr().err
    assert len(started) == 2

    assert train.main(["--config", str(SMOKE), "--run-dir", str(preset)]) == 1
    assert "contains weights (model.weights.h5) that belong to no run" in capsys.readouterr().err
    assert (preset / "model.weights.h5").read_text() == "precious"


@pytest.mark.parametrize(
    "vary",
    ["model.fusion", "model.fusion=concat", "model.fusion=late,late", "model.fusion=concat,sum"],
)
def test_invalid_ablation_is_refused(tmp_path: Path, vary: str):
    assert (
        load_ablation().main(
            ["--config", str(SMOKE), "--vary", vary, "--out", str(tmp_path / "out")]
        )
        == 1
    )
    assert not (tmp_path / "out").exists()
