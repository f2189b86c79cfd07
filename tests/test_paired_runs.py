"""Tests for comparing runs: paired differences, and the spread over runs with other seeds."""

import json
import shutil
import statistics
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel
from sklearn.metrics import brier_score_loss, f1_score, recall_score, roc_auc_score
from test_evaluation_results import simulate_cases

from eczema_tf import evaluate
from eczema_tf.config import (
    Config,
    DataConfig,
    TrainConfig,
    change_config,
    dump_config,
    load_config,
)
from eczema_tf.data.dataset import load_dataset
from eczema_tf.errors import RunError
from eczema_tf.evaluation.intervals import Estimate
from eczema_tf.evaluation.paired_runs import measure_spread, pair_runs
from eczema_tf.evaluation.records import Leaks, Metrics
from eczema_tf.evaluation.results import compute_metrics
from eczema_tf.evaluation.sample import Sample
from eczema_tf.files import write_csv, write_text
from eczema_tf.workflows import train as training
from eczema_tf.workflows.compare import compare

THRESHOLDS = {"image": 0.4, "text": 0.5, "fusion": 0.6}


def draw(cases: pd.DataFrame) -> Sample:
    return Sample.draw(cases, THRESHOLDS, 0.5, replicates=0, seed=0)


def worsen(cases: pd.DataFrame, noise: float) -> pd.DataFrame:
    """Answers the same cases with noisier logits of the photo."""
    rng = np.random.default_rng(1)
    logits = cases["eczema_image_logit"] + rng.normal(0, noise, len(cases))
    return cases.assign(p_image=1 / (1 + np.exp(-logits)))


@pytest.fixture(scope="module")
def cases() -> pd.DataFrame:
    return simulate_cases(400).assign(group_id=[f"g{place}" for place in range(400)])


def test_run_does_not_differ_from_itself(cases):
    for head in pair_runs(draw(cases), draw(cases)).values():
        for paired in head.metrics.values():
            assert paired.first == paired.second
            assert (paired.difference.value, paired.difference.p) == (0, None)


def test_differences_match_scikit_learn_and_the_paired_t_test(cases):
    worse = worsen(cases, 2.0)
    found = pair_runs(draw(cases), draw(worse))["image"]
    scored = cases["p_image"].notna()
    labels, one, other = (
        column[scored] for column in (cases["eczema"], cases["p_image"], worse["p_image"])
    )
    for name, measure in {
        "auroc": lambda p: roc_auc_score(labels, p),
        "brier": lambda p: brier_score_loss(labels, p),
        "sensitivity": lambda p: recall_score(labels, p >= 0.4),
        "specificity": lambda p: recall_score(1 - labels, p < 0.4),
        "f1": lambda p: f1_score(labels, p >= 0.4),
    }.items():
        paired = found.metrics[name]
        assert (paired.first, paired.second) == pytest.approx((measure(one), measure(other)))
        assert paired.difference.value == pytest.approx(measure(other) - measure(one))
        assert paired.difference.low < paired.difference.value < paired.difference.high
    of_library = ttest_rel((other - labels) ** 2, (one - labels) ** 2)
    low, high = of_library.confidence_interval()
    brier = found.metrics["brier"].difference
    assert (brier.low, brier.high) == pytest.approx((low, high), rel=0.01)
    assert brier.p == pytest.approx(of_library.pvalue, rel=0.05)
    assert found.metrics["auroc"].difference.p < 0.001


def test_paired_interval_is_under_half_as_wide_as_that_of_one_run(cases):
    slightly = pair_runs(draw(cases), draw(worsen(cases, 0.5)))["image"].metrics["auroc"]
    own = draw(cases).of_head("image")
    alone = own.estimate_auroc(own.measure_auroc("p_image"), "")
    paired = slightly.difference
    assert paired.high - paired.low < (alone.high - alone.low) / 2


def test_copies_of_a_case_in_its_group_do_not_narrow_the_interval(cases):
    worse = worsen(cases, 2.0)
    once = pair_runs(draw(cases), draw(worse))["image"].metrics["brier"].difference
    both = [pd.concat([one, one.assign(case_id=one["case_id"] + "b")]) for one in (cases, worse)]
    twice = pair_runs(*map(draw, both))["image"].metrics["brier"].difference
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high))


def save(folder: Path, cases: pd.DataFrame, **options: object) -> Path:
    folder.mkdir()
    write_csv(folder / "predictions.csv", cases)
    chosen = {"label_threshold": 0.5, "replicates": 20, "seed": 0} | options
    called = {"positive_class": chosen.pop("positive_class", "eczema")}
    metrics = compute_metrics(cases, THRESHOLDS, **chosen).model_copy(update=called)
    metrics.write(folder / "metrics.json")
    return folder


def test_compare_uses_the_cases_that_both_runs_have(cases, tmp_path, capsys):
    one, other = (
        save(tmp_path / "one", cases),
        save(tmp_path / "other", worsen(cases[::-1], 2)[100:]),
    )
    out = tmp_path / "out"
    assert evaluate.main(["--compare", str(one), str(other), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    told = "the 300 cases that all runs have in common; the runs have 400, 300"
    assert told in " ".join(printed.split())
    assert "other compared with one" in printed
    found = json.loads((out / "comparison.json").read_text())["others"]["other"]["image"]["metrics"]
    difference = found["auroc"]["difference"]
    assert difference["value"] < 0
    shown = f"{difference['value']:.3f} [{difference['low']:.3f}, {difference['high']:.3f}]"
    for text in (printed, *((out / f"comparison.{kind}").read_text() for kind in ("md", "html"))):
        assert shown in text


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        ({"eczema": 0.0}, {}, "the same cases have different labels in the two runs"),
        ({"case_id": "x"}, {}, "no case is in all of them"),
        ({"repeat": 0}, {}, "one is a cross-validation"),
        ({}, {"label_threshold": 0.3}, "positive above 0.5 in one run and above 0.3 in the other"),
        ({}, {"positive_class": "malignant"}, "one detects eczema and the other malignant"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(cases, tmp_path, capsys, change, options, said):
    few = cases.head(50)
    one, other = save(tmp_path / "a", few), save(tmp_path / "b", few.assign(**change), **options)
    assert evaluate.main(["--compare", str(one), str(other)]) == 1
    assert said in capsys.readouterr().err


def test_compare_refuses_a_run_folder_a_file_or_the_same_run_twice(cases, tmp_path, capsys):
    one, other = save(tmp_path / "one", cases), save(tmp_path / "other", cases)
    (one / "config.yaml").write_text("seed: 0\n")
    assert evaluate.main(["--compare", str(one), str(other), "--out", str(one)]) == 1
    assert "is the folder of a run" in capsys.readouterr().err
    (tmp_path / "file").write_text("x")
    out = str(tmp_path / "file")
    assert evaluate.main(["--compare", str(one), str(other), "--out", out]) == 1
    assert "is a file; give a folder" in capsys.readouterr().err
    assert not list(one.glob("comparison.*"))
    assert evaluate.main(["--compare", str(one), str(one)]) == 1
    assert "names the same run twice" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [[], ["--compare", "a"], ["--compare", "a", "b", "--run-dir", "c"]]
)
def test_incomplete_or_conflicting_arguments_are_a_usage_error(arguments):
    with pytest.raises(SystemExit, match="2"):
        evaluate.main(arguments)


@pytest.fixture(scope="module")
def of_seeds() -> list[Metrics]:
    """Metrics of three runs; the first answers 0.5 in every second case."""
    cases = simulate_cases()
    worse = cases.assign(p_fusion=cases["p_fusion"].where(cases.index % 2 == 0, 0.5))
    return [
        compute_metrics(one, THRESHOLDS, label_threshold=0.5, seed=0, replicates=20)
        for one in (worse, cases, cases)
    ]


def test_spread_summarises_the_values_of_all_runs(of_seeds: list[Metrics]):
    spreads = measure_spread(of_seeds)
    aurocs = [metrics.heads["fusion"].auroc.value for metrics in of_seeds]
    found = spreads["auroc_fusion"]
    assert found.values == aurocs
    assert (found.mean, found.sd) == pytest.approx((np.mean(aurocs), statistics.stdev(aurocs)))
    assert (found.lowest, found.highest) == (aurocs[0], aurocs[1])
    assert spreads["auroc_image"].sd == 0
    assert {"fusion_gain", "sensitivity", "specificity", "f1", "ece"} <= set(spreads)


def test_figure_of_only_one_run_has_no_spread(of_seeds: list[Metrics]):
    undefined = Estimate(value=None, low=None, high=None, reason="no case")
    heads = {**of_seeds[0].heads}
    heads["image"] = heads["image"].model_copy(update={"auroc": undefined})
    found = measure_spread([of_seeds[0].model_copy(update={"heads": heads}), of_seeds[1]])
    alone = found["auroc_image"]
    assert (alone.values[0], alone.mean, alone.sd) == (None, None, None)


def test_runs_with_several_seeds_resume_where_they_were_killed(
    of_seeds: list[Metrics], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    trained = []

    def train_or_die(config: Config, run_dir: Path, *, resume: bool) -> Metrics:
        trained.append((config.seed, config.export.enabled, resume))
        write_text(run_dir / "config.yaml", dump_config(config))
        of_seeds[config.seed - 7].write(run_dir / "metrics.json")
        if config.seed == 8 and not resume:
            raise KeyboardInterrupt  # before TensorBoard's part and the checksums
        write_text(run_dir / "SHA256SUMS", "")
        return of_seeds[config.seed - 7]

    monkeypatch.setattr(training, "train", train_or_die)
    monkeypatch.setattr(training, "_check_finished", lambda *_: None)  # these runs have no data
    config, folder = Config(seed=7), tmp_path / "runs"
    with pytest.raises(KeyboardInterrupt):
        training.train_seeds(config, 3, folder)
    with pytest.raises(RunError, match="already contains a run"):
        training.train_seeds(config, 3, folder)
    with pytest.raises(RunError, match="another configuration"):
        training.train_seeds(Config(seed=7, train=TrainConfig(epochs=3)), 3, folder, resume=True)
    other = folder / "seed-9"  # is checked before the runs of other seeds resume
    write_text(other / "config.yaml", dump_config(Config(seed=9, train=TrainConfig(epochs=3))))
    with pytest.raises(RunError, match="seed-9: was started with another configuration"):
        training.train_seeds(config, 3, folder, resume=True)
    assert trained == [(7, False, False), (8, False, False)]
    shutil.rmtree(other)
    spreads = training.train_seeds(config, 3, folder, resume=True)
    assert trained == [(7, False, False), (8, False, False), (8, False, True), (9, False, False)]
    assert spreads == measure_spread(of_seeds)
    written = json.loads((folder / "seeds.json").read_text())
    assert written["seeds"] == [7, 8, 9]
    assert written["figures"]["auroc_fusion"]["sd"] == spreads["auroc_fusion"].sd
    assert load_config(folder / "seeds.yaml") == config
    assert "AUROC, both (fusion)" in (folder / "seeds.md").read_text()
    assert "3 runs, seeds 7 to 9" in capsys.readouterr().out


def test_finished_cross_validation_is_not_repeated(
    of_seeds: list[Metrics], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It counts as finished although it keeps no model, and so has no checksums."""
    config = load_config(overrides=["split.folds=3"])
    of_fold = change_config(config, {"export.enabled": False})
    write_text(tmp_path / "seed-0" / "config.yaml", dump_config(of_fold))
    of_seeds[0].write(tmp_path / "seed-0" / "metrics.json")
    monkeypatch.setattr(training, "train", Mock(side_effect=AssertionError("trained again")))
    monkeypatch.setattr(training, "_check_finished", lambda *_: None)
    found = training.train_seeds(config, 1, tmp_path, resume=True)
    assert found["auroc_fusion"].values == [of_seeds[0].heads["fusion"].auroc.value]


def test_run_on_other_data_is_refused_when_seeds_are_resumed(
    of_seeds: list[Metrics], toy_manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    manifest = tmp_path / "manifest.csv"
    shutil.copytree(toy_manifest.parent, tmp_path, dirs_exist_ok=True)
    config = Config(data=DataConfig(manifest=str(manifest)))
    finished = tmp_path / "runs" / "seed-0"
    one = change_config(config, {"export.enabled": False})
    write_text(finished / "config.yaml", dump_config(one))
    load_dataset(config.data, manifest).describe().write(finished / "data.json")
    of_seeds[0].write(finished / "metrics.json")
    write_text(finished / "SHA256SUMS", "")
    monkeypatch.setattr(training, "train", lambda *_, **__: of_seeds[1])
    assert training.train_seeds(config, 2, tmp_path / "runs", resume=True)
    manifest.write_text(manifest.read_text().replace("itchy", "sore"))
    with pytest.raises(RunError, match="seed-0: was trained on other data"):
        training.train_seeds(config, 2, tmp_path / "runs", resume=True)


def test_differences_over_nine_positives_have_no_interval():
    cases = simulate_cases(400).assign(group_id=[f"g{place}" for place in range(400)])
    scored = cases["p_image"].notna() & cases["eczema"].notna()
    sick = cases.index[scored & (cases["eczema"] > 0.5)][9:]
    cases = cases.drop(index=sick).reset_index(drop=True)  # nine are left
    found = pair_runs(draw(cases), draw(worsen(cases, 2.0)))["image"].metrics
    few = "no interval: 9 groups"
    assert found["auroc"].difference.reason.startswith(f"{few} have a case of the rarer class")
    assert found["sensitivity"].difference.reason.startswith(f"{few}, 10 are needed")
    assert found["specificity"].difference.low is not None


def test_head_is_compared_on_cases_that_both_runs_answered(cases):
    fewer = cases.assign(p_image=cases["p_image"].where(np.arange(400) % 2 == 0))
    both = int((cases["p_image"].notna() & fewer["p_image"].notna()).sum())
    for pair in ((cases, fewer), (fewer, cases)):
        found = pair_runs(*map(draw, pair))
        assert (found["image"].cases, found["text"].cases) == (both, cases["p_text"].count())
        assert found["image"].metrics["auroc"].difference.value == 0
    assert "image" not in pair_runs(draw(cases), draw(cases.assign(p_image=np.nan)))


def test_comparison_counts_a_repeated_case_once(cases):
    again = pd.concat([cases.assign(fold=0, repeat=repeat) for repeat in range(3)])
    once, thrice = (pair_runs(draw(one), draw(one))["fusion"] for one in (cases, again))
    assert (thrice.cases, thrice.positives) == (once.cases, once.positives)


def test_metric_undefined_in_both_runs_is_null_with_a_reason(cases):
    well = cases.assign(eczema=0.0)
    found = pair_runs(draw(well), draw(well))["fusion"].metrics
    for name in ("auroc", "sensitivity", "f1"):
        assert (found[name].first, found[name].second) == (None, None)
        assert found[name].difference.reason.startswith("one class only")
    assert found["specificity"].first == found["specificity"].second
    assert found["specificity"].first is not None


def test_spread_includes_the_share_answered():
    cases = simulate_cases()
    cases = cases.assign(known_image=cases["image_used"], known_text=cases["text_used"])
    cases = cases.assign(undecided_from=-1.0, undecided_to=1.0)
    runs = [
        compute_metrics(
            cases.assign(decision=np.where(cases.index % by, "eczema", "cannot tell")),
            THRESHOLDS,
            label_threshold=0.5,
            seed=0,
            replicates=20,
        )
        for by in (2, 4)
    ]
    assert measure_spread(runs)["answered"].values == [0.5, 0.75]


def test_compared_runs_use_the_labels_of_the_first_run(cases, tmp_path):
    votes = cases.assign(eczema=cases["eczema"].map({0.0: 0.2, 1.0: 0.6}))
    one = save(tmp_path / "votes", votes)
    other = save(tmp_path / "yes_or_no", votes, soft_labels=False)
    found = compare([one, other])["yes_or_no"]["fusion"].metrics["brier"]
    assert found.first == found.second
    errors = (votes["p_fusion"] - votes["eczema"]) ** 2
    assert found.first == pytest.approx(errors.mean())


def test_three_runs_are_compared_on_their_common_cases(cases, tmp_path, capsys):
    runs = [save(tmp_path / "one", cases), save(tmp_path / "other", cases[:300])]
    runs.append(save(tmp_path / "third", cases[200:]))
    found = compare(runs)
    common = cases[200:300]["p_text"].count()
    assert [heads["text"].cases for heads in found.values()] == [common, common]
    assert "the 100 cases that all runs have in common" in " ".join(capsys.readouterr().out.split())


def test_comparison_warns_of_leaks_whichever_run_has_them(cases, tmp_path, capsys):
    runs = [save(tmp_path / "one", cases), save(tmp_path / "other", cases)]
    compare(runs)
    assert "leak" not in capsys.readouterr().out.lower()
    leaks = Leaks(leaks=2, examples=["group 'g1'"])
    found = Metrics.read(runs[1] / "metrics.json").model_copy(update={"leaks": leaks})
    found.write(runs[1] / "metrics.json")
    compare(runs)
    said = capsys.readouterr().out
    assert "Leaks: some of these cases" in said
    assert "g1" not in said  # an id may be a patient's


def test_compared_folders_of_one_name_are_told_apart_by_their_paths(cases, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    runs = [save(tmp_path / place, cases) for place in ("first", "a/run", "b/run")]
    assert list(compare(runs)) == list(map(str, runs[1:]))


def test_runs_with_unlabelled_cases_can_be_compared(cases, tmp_path):
    some = cases.assign(eczema=cases["eczema"].where(np.arange(400) < 300))
    found = compare([save(tmp_path / "one", some), save(tmp_path / "other", some)])
    assert found["other"]["fusion"].cases == 300
