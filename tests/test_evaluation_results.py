"""Tests for all metrics, their table and plots, on simulated cases with known limits."""

import json
import math
import re
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    precision_score,
    recall_score,
    roc_auc_score,
)

from eczema_tf.evaluation.predictions import average_rows_by_case
from eczema_tf.evaluation.records import Metrics
from eczema_tf.evaluation.results import compute_metrics, find_subsets
from eczema_tf.reporting import plots
from eczema_tf.reporting.document import format_text
from eczema_tf.reporting.plots import PR, ROC, write_plots
from eczema_tf.reporting.report import build_results
from eczema_tf.schema import CONSISTENCY, NOTICE, SEVERITY

THRESHOLDS = {"image": 0.5, "text": 0.5, "fusion": 0.5}
HEADS, FIGURES = ("image", "text", "fusion"), ("auroc", "f1", "sensitivity", "specificity")
CHOSEN = {"label_threshold": 0.5, "replicates": 1000, "seed": 0}
PNG = b"\x89PNG\r\n\x1a\n"


def simulate_cases(count=400, seed=0, *, noise=0.3, shift=1.5):
    """Simulates cases whose photo and text each show a normal score, shifted for eczema.

    The exact posteriors are known; the model's logits are noisy versions of theirs.
    """
    rng = np.random.default_rng(seed)
    eczema = rng.random(count) < 0.4
    image_used = rng.random(count) > 0.15
    text_used = (rng.random(count) > 0.15) | ~image_used
    prior = math.log(0.4 / 0.6)
    evidence = {
        name: shift * (rng.normal(shift * eczema, 1) - shift / 2) for name in ("image", "text")
    }  # exact log likelihood ratios
    evidence["image"], evidence["text"] = (
        np.where(image_used, evidence["image"], np.nan),
        np.where(text_used, evidence["text"], np.nan),
    )
    evidence["fusion"] = np.nan_to_num(evidence["image"]) + np.nan_to_num(evidence["text"])
    logits = {
        name: prior + values + rng.normal(0, noise, count) for name, values in evidence.items()
    }
    grades, topics = rng.integers(0, 3, count), rng.integers(0, 3, count)
    score = grades + rng.normal(0, 0.4, count)
    rows = {
        "example_id": [f"row{place}" for place in range(count)],
        "case_id": [f"case{place}" for place in range(count)],
        "group_id": [f"group{place // 2}" for place in range(count)],
        "eczema": eczema.astype(float),
        "consistency": np.array(CONSISTENCY)[topics],
        "severity": np.array(SEVERITY)[grades],
        "image_used": image_used,
        "text_used": text_used,
        "eczema_image_logit": logits["image"],
        "eczema_text_logit": logits["text"],
        "eczema_logit": logits["fusion"],
        **{
            f"{head}_logit_{cut}": np.where(used, 3 * (score - cut - 0.5), np.nan)
            for head, used in (
                ("severity", True),
                ("severity_image", image_used),
                ("severity_text", text_used),
            )
            for cut in (0, 1)
        },
        "posterior_grade_fusion": grades,
        **{
            f"posterior_{name}": 1 / (1 + np.exp(-prior - values))
            for name, values in evidence.items()
        },
        **{
            f"consistency_logit_{place}": np.where(
                text_used, rng.normal(2.0 * (topics == place), 1), np.nan
            )
            for place in range(3)
        },
    }
    return average_rows_by_case(pd.DataFrame(rows))


def compute_json(*arguments, **options) -> dict:
    """Computes metrics in the form of `metrics.json`."""
    found = compute_metrics(*arguments, **CHOSEN | options)
    return found.model_dump(mode="json", by_alias=True, exclude_unset=True)


@pytest.fixture(scope="module")
def cases():
    return simulate_cases()


@pytest.fixture(scope="module")
def metrics(cases):
    return compute_json(cases, THRESHOLDS, replicates=200)


def test_offsets_between_fold_models_do_not_change_auroc(cases):
    folds = cases.assign(fold=np.arange(len(cases)) % 5, repeat=np.arange(len(cases)) % 2)
    offset = 3.0 * folds["fold"] - 5.0 * folds["repeat"]
    moved = folds.assign(p_text=1 / (1 + np.exp(-folds["eczema_text_logit"] - offset)))
    before, after = (
        compute_json(table, THRESHOLDS, replicates=100)["heads"]["text"] for table in (folds, moved)
    )
    assert before["auroc"] == after["auroc"]
    assert before["sensitivity"] != after["sensitivity"]


def test_metrics_of_each_head_match_scikit_learn(cases, metrics):
    for modality in HEADS:
        scored = cases[cases[f"p_{modality}"].notna()]
        head = metrics["heads"][modality]
        assert (head["cases"], head["positives"], head["threshold"]) == (
            len(scored),
            scored["eczema"].sum(),
            0.5,
        )
        assert head["auroc"]["value"] == pytest.approx(
            roc_auc_score(scored["eczema"], scored[f"p_{modality}"])
        )
        assert head["sensitivity"]["value"] == pytest.approx(
            (scored[f"p_{modality}"] >= 0.5)[scored["eczema"] == 1].mean()
        )
        assert metrics["limit"][modality] == pytest.approx(
            roc_auc_score(scored["eczema"], scored[f"posterior_{modality}"])
        )


def test_operating_points_are_judged_per_kind_of_case(cases):
    points = {"sensitivity 0.9": {"image": 0.2, "fusion": 0.3}}
    found = compute_json(cases, THRESHOLDS, points=points, prevalences=[0.1], replicates=20)
    judged = {(point["kind"], point["aim"]): point for point in found["operating_points"]}
    assert list(judged) == [
        ("image", "Youden"),
        ("image", "sensitivity 0.9"),
        ("text", "Youden"),  # text has no threshold for 0.9
        ("fusion", "Youden"),
        ("fusion", "sensitivity 0.9"),
    ]
    used = {"image": cases["image_used"], "fusion": cases["image_used"] & cases["text_used"]}
    for (kind, aim), point in judged.items():
        part = cases[used.get(kind, cases["text_used"])]
        positive, called = part["eczema"] == 1, part[f"p_{kind}"] >= point["threshold"]
        assert point["threshold"] == (0.5 if aim == "Youden" else points[aim][kind])
        assert point["cases"] == len(part)
        assert point["confusion"] == confusion_matrix(~positive, ~called).tolist()
        assert point["sensitivity"]["value"] == pytest.approx(recall_score(positive, called))
        assert point["specificity"]["value"] == pytest.approx(recall_score(~positive, ~called))
        own, stated = point["predictive_values"]
        assert own["ppv"]["value"] == pytest.approx(precision_score(positive, called))
        assert own["npv"]["value"] == pytest.approx(precision_score(~positive, ~called))
        assert stated["prevalence"] == 0.1


def test_metrics_have_the_structure_of_metrics_json(metrics):
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    assert (metrics["split"], metrics["cases"], metrics["labelled"]) == ("test", 400, 400)
    for block in (metrics, *metrics["subsets"].values()):
        assert tuple(block["heads"]) == HEADS
        assert tuple(block["limit"]) == HEADS
        for head in block["heads"].values():
            for figure in FIGURES:
                assert {"value", "low", "high"} <= set(head[figure])
                assert ("reason" in head[figure]) == (None in head[figure].values())
    for figure in FIGURES:
        estimate = metrics["heads"]["fusion"][figure]
        assert 0 < estimate["low"] < estimate["value"] < estimate["high"] < 1


def test_metrics_json_keeps_key_order_and_is_read_back_as_written(cases, tmp_path):
    found = compute_metrics(cases, THRESHOLDS, label_threshold=0.5, seed=0, replicates=20)
    found.write(tmp_path / "metrics.json")
    read = Metrics.read(tmp_path / "metrics.json")
    read.write(tmp_path / "again.json")
    text = (tmp_path / "metrics.json").read_text()
    assert read == found
    assert (tmp_path / "again.json").read_text() == text
    written = json.loads(text)
    assert list(written) == [
        "split",
        "positive_class",
        "cases",
        "labelled",
        "heads",
        "fusion_gain",
        "limit",
        "gap_to_limit",
        "operating_points",
        "subsets",
        "consistency",
        "severity",
        "positive_above",
        "soft_labels",
        "bootstrap",
        "metadata",
    ]
    assert list(written["fusion_gain"]) == ["over", "cases", "value", "low", "high", "p"]
    assert list(written["severity"]["confusion"]) == ["labels", "rows", "counts"]
    assert list(written["subsets"]["both_present"]) == [
        "defined_by",
        "cases",
        "labelled",
        "heads",
        "fusion_gain",
        "limit",
        "gap_to_limit",
    ]


def test_fusion_gain_is_over_the_better_single_head_on_cases_with_both(cases, metrics):
    both = cases[cases["image_used"] & cases["text_used"]]
    aurocs = {modality: roc_auc_score(both["eczema"], both[f"p_{modality}"]) for modality in HEADS}
    gain = metrics["fusion_gain"]
    assert (gain["over"], gain["cases"]) == (max(("image", "text"), key=aurocs.get), len(both))
    assert gain["value"] == pytest.approx(aurocs["fusion"] - aurocs[gain["over"]])
    assert 0 < gain["low"] < gain["value"] < gain["high"]


def test_fusion_that_copies_the_photo_has_a_gain_of_exactly_zero(cases):
    copied = cases.assign(p_fusion=cases["p_image"], p_text=1 - cases["p_image"])
    gain = compute_json(copied, THRESHOLDS, replicates=50)["fusion_gain"]
    assert (gain["over"], gain["value"], gain["low"], gain["high"]) == ("image", 0, None, None)


def test_case_is_positive_only_above_the_label_threshold(cases):
    soft = cases.assign(eczema=np.where(cases["eczema"] > 0, 0.6, 0.3))
    assert (
        compute_json(soft, THRESHOLDS, label_threshold=0.5, seed=0, replicates=20)["heads"][
            "fusion"
        ]["positives"]
        == (cases["eczema"] > 0).sum()
    )
    assert (
        compute_json(soft, THRESHOLDS, label_threshold=0.6, replicates=20)["heads"]["fusion"][
            "positives"
        ]
        == 0
    )


def test_calibration_uses_hard_labels_without_soft_labels(cases):
    """A model that learned "any vote" is not too high if only a third of the votes are eczema."""
    shares = cases.assign(eczema=cases["eczema"] / 3)
    found = {}
    for soft in (True, False):
        rules = {"label_threshold": 0.0, "soft_labels": soft, "replicates": 20}
        found[soft] = compute_json(shares, THRESHOLDS, **rules)
    whole = compute_json(cases, THRESHOLDS, label_threshold=0.0, replicates=20)
    assert found[False]["heads"] == whole["heads"]
    assert found[True]["heads"]["fusion"]["auroc"] == whole["heads"]["fusion"]["auroc"]
    too_high = found[True]["heads"]["fusion"]["calibration"]["in_the_large"]["value"]
    assert too_high == pytest.approx(cases["eczema"].mean() * 2 / 3, abs=0.03)


def test_cross_validation_repeats_count_each_case_once(cases):
    cases = cases.assign(decision=np.where(cases.index % 4, "eczema", "cannot tell"))
    cases = cases.assign(known_image=cases["image_used"], known_text=cases["text_used"])
    cases = cases.assign(undecided_from=-1.0, undecided_to=1.0)
    again = pd.concat([cases.assign(fold=0, repeat=repeat) for repeat in range(3)])
    once, thrice = (compute_json(each, THRESHOLDS, replicates=20) for each in (cases, again))
    for name in ("consistency", "severity"):
        assert thrice[name]["cases"] == once[name]["cases"]
        assert thrice[name]["confusion"] == once[name]["confusion"]
    confusions = [
        [point["confusion"] for point in each["operating_points"]] for each in (once, thrice)
    ]
    assert confusions[0] == confusions[1]
    one, three = (each["abstention"]["groups"]["all"] for each in (once, thrice))
    for count in ("cases", "unknown", "undecided"):
        assert three[count] == one[count]
    assert one["undecided"] == 100


def test_unlabelled_cases_are_counted_but_not_scored(cases):
    metrics = compute_json(
        cases.assign(eczema=cases["eczema"].where(cases.index < 100)), THRESHOLDS, replicates=20
    )
    assert (metrics["cases"], metrics["labelled"], metrics["heads"]["fusion"]["cases"]) == (
        400,
        100,
        100,
    )


def test_subsets_contain_the_expected_cases():
    nan = float("nan")
    cases = pd.DataFrame(
        {
            "image_used": [True, True, True, False],
            "text_used": [True, False, True, True],
            "p_image": [0.5, 0.75, 0.8, nan],
            "p_text": [0.1, nan, 0.25, 0.5],
            "posterior_image": [0.1, 0.2, 0.8, 0.5],  # the last photo could not be used
        }
    )
    found = {
        name: (defined_by, list(np.flatnonzero(mask)))
        for name, (defined_by, mask) in find_subsets(cases).items()
    }
    assert found == {
        "image_ambiguous": ("known posterior", [1, 2]),
        "text_ambiguous": ("model probability", [2, 3]),
        "image_missing": ("no photo", [3]),
        "text_missing": ("no text", [1]),
        "both_present": ("photo and text", [0, 2]),
    }
    assert list(
        np.flatnonzero(find_subsets(cases.drop(columns="posterior_image"))["image_ambiguous"][1])
    ) == [0, 1]


def test_known_and_new_wordings_are_judged_separately(cases):
    """Each kind gets the metrics that its cases would have by themselves.

    A cross-validation has learned from both kinds, so it judges neither.
    """
    cases["wordings"] = np.array(["known", "new", "", "known"])[np.arange(len(cases)) % 4]
    metrics = compute_json(cases, THRESHOLDS, replicates=20)
    for name in ("known", "new"):
        alone = cases[cases["wordings"] == name].reset_index(drop=True)
        found, expected = metrics["wordings"][name], compute_json(alone, THRESHOLDS, replicates=20)
        assert found["limit"] == pytest.approx(expected["limit"])
        for modality in HEADS:
            auroc, same = (judged["heads"][modality]["auroc"] for judged in (found, expected))
            assert auroc["value"] == pytest.approx(same["value"])
            assert auroc["low"] < auroc["value"] < auroc["high"]
        assert "wordings" not in expected
    folds = cases.assign(fold=np.arange(len(cases)) % 2)
    assert "wordings" not in compute_json(folds, THRESHOLDS, replicates=20)


def test_fusion_helps_more_where_the_photo_is_ambiguous_than_on_all_cases(metrics):
    ambiguous = metrics["subsets"]["image_ambiguous"]
    fusion, image = (
        [judged["heads"][head]["auroc"]["value"] for judged in (ambiguous, metrics)]
        for head in ("fusion", "image")
    )
    assert fusion[0] - image[0] > max(0.1, fusion[1] - image[1])
    assert (
        metrics["subsets"]["image_missing"]["heads"]["image"]["auroc"]["reason"]
        == "no labelled case has a photo"
    )


def test_data_without_known_posteriors_has_no_limit(cases):
    metrics = compute_json(
        cases.drop(columns=[f"posterior_{modality}" for modality in HEADS]),
        THRESHOLDS,
        replicates=20,
    )
    assert "limit" not in metrics
    assert metrics["subsets"]["image_ambiguous"]["defined_by"] == "model probability"


def test_consistency_and_severity_are_judged_on_labelled_cases(cases, metrics):
    consistency, severity = metrics["consistency"], metrics["severity"]
    assert (
        consistency["cases"]
        == cases["text_used"].sum()
        == np.sum(consistency["confusion"]["counts"])
    )
    told = cases[(cases["eczema"] > 0.5) & (cases["severity_predicted"] != "")]  # only of eczema
    assert severity["cases"] == len(told) < len(cases)
    assert np.sum(severity["confusion"]["counts"], axis=1).tolist() == [
        (told["severity"] == grade).sum() for grade in SEVERITY
    ]
    off = np.abs(
        told["severity"].map(SEVERITY.index) - told["severity_predicted"].map(SEVERITY.index)
    )
    assert severity["limit"] == 1.0
    alone = severity["alone"]
    assert alone["image"]["cases"] == (cases["image_used"] & (cases["eczema"] > 0.5)).sum()
    assert "limit" not in alone["image"]
    assert severity["mae"]["value"] == pytest.approx(off.mean())
    assert 0.6 < severity["kappa"]["value"] < 1
    unlabelled = compute_json(cases.assign(consistency="", severity=""), THRESHOLDS, replicates=20)
    assert (
        unlabelled["consistency"]["macro_f1"]["reason"]
        == "no case to judge has a consistency label and a prediction"
    )
    assert (unlabelled["severity"]["cases"], unlabelled["severity"]["mae"]["value"]) == (0, None)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class_gives_null_with_a_reason(cases, label):
    metrics = compute_json(
        cases.head(30).assign(eczema=label, severity="mild"), THRESHOLDS, replicates=20
    )
    json.dumps(metrics, allow_nan=False)
    for head in metrics["heads"].values():
        for figure in ("auroc", "f1", "specificity" if label else "sensitivity"):
            assert head[figure]["value"] is None
            assert head[figure]["reason"].startswith("one class only")
    assert (
        metrics["fusion_gain"]["over"],
        metrics["fusion_gain"]["value"],
        metrics["limit"]["fusion"],
    ) == (None, None, None)
    reason = metrics["severity"]["kappa"]["reason"]
    if label:
        assert re.fullmatch(r"all \d+ cases are labelled 'mild'", reason)
    else:
        assert reason == "no case to judge has a severity label and a prediction"
    assert "photo, AUROC, F1" in format_text(build_results(Metrics.model_validate(metrics)))


def test_no_cases_give_null_metrics_a_table_and_plots(cases, tmp_path):
    metrics = compute_json(cases.head(0), THRESHOLDS, replicates=20)
    json.dumps(metrics, allow_nan=False)
    assert metrics["heads"]["text"]["auroc"]["reason"] == "no labelled case has a text"
    assert "0 cases" in format_text(build_results(Metrics.model_validate(metrics)))
    write_plots(tmp_path, cases.head(0), Metrics.model_validate(metrics))


def test_order_of_cases_does_not_change_auroc(cases, metrics):
    shuffled = compute_json(cases.sample(frac=1, random_state=0), THRESHOLDS, replicates=200)
    for modality in HEADS:
        assert shuffled["heads"][modality]["auroc"] == pytest.approx(
            metrics["heads"][modality]["auroc"]
        )


def test_evaluation_of_500_cases_takes_seconds():
    start = time.perf_counter()
    compute_json(simulate_cases(500), THRESHOLDS, replicates=1000)
    assert time.perf_counter() - start < 10  # 0.3 s on two idle cores


def test_table_fits_100_columns_and_shows_the_metrics_of_every_head(metrics):
    table = format_text(build_results(Metrics.model_validate(metrics)))
    assert max(map(len, table.splitlines())) <= 100
    for head, name in zip(HEADS, ("photo  ", "text  ", "both (fusion)  "), strict=True):
        line = next(line for line in table.splitlines() if line.startswith(name))
        auroc, limit = metrics["heads"][head]["auroc"], metrics["limit"][head]
        assert f"{auroc['value']:.3f} [{auroc['low']:.3f}, {auroc['high']:.3f}]" in line
        assert f"  {limit:.3f}  {limit - auroc['value']:.3f} [" in line
    assert f"{metrics['fusion_gain']['value']:.3f}" in table
    assert " ".join(table.split()).endswith(NOTICE)


@pytest.mark.parametrize("name", [ROC, PR])
def test_plots_are_reproducible_png_files_with_a_curve_per_head(cases, metrics, tmp_path, name):
    for folder in (tmp_path / "new" / "a", tmp_path / "b"):
        write_plots(folder, cases, Metrics.model_validate(metrics))
    first, second = tmp_path / "new" / "a" / name, tmp_path / "b" / name
    assert first.read_bytes().startswith(PNG)
    assert first.read_bytes() == second.read_bytes()
    with Image.open(first) as image:
        colours = {pixel for _, pixel in image.convert("RGB").getcolors(1 << 20)}
    assert {
        (0xE6, 0x9F, 0x00),
        (0x00, 0x72, 0xB2),
        (0x00, 0x9E, 0x73),
    } <= colours  # a curve for each head


def test_drawn_areas_are_the_reported_ones_and_dots_are_at_thresholds(
    cases, metrics, tmp_path, monkeypatch
):
    drawn, build = [], plots._build_axes
    monkeypatch.setattr(
        plots, "_build_axes", lambda *names: drawn.append(build(*names)) or drawn[-1]
    )
    write_plots(tmp_path, cases, Metrics.model_validate(metrics))
    roc, pr, *_ = (axes.lines for _, axes in drawn)
    for number, modality in enumerate(HEADS):
        scored, head = cases[cases[f"p_{modality}"].notna()], metrics["heads"][modality]
        curve, dot = roc[1 + 2 * number], roc[2 + 2 * number]
        assert np.trapezoid(*curve.get_data()[::-1]) == pytest.approx(head["auroc"]["value"])
        found = head["sensitivity"]["value"]
        assert dot.get_data() == ([pytest.approx(1 - head["specificity"]["value"])], [found])
        curve, dot = pr[1 + 2 * number], pr[2 + 2 * number]
        recall, precision = curve.get_data()
        area = average_precision_score(scored["eczema"], scored[f"p_{modality}"])
        assert (-np.diff(recall) * precision[:-1]).sum() == pytest.approx(area)
        right = precision_score(scored["eczema"] > 0.5, scored[f"p_{modality}"] >= 0.5)
        assert dot.get_data() == ([found], [pytest.approx(right)])


def test_dots_match_the_reported_metrics_if_thresholds_differ(monkeypatch):
    """Fusion decides cases with only a photo or only a text by the threshold of that head."""
    cases, dots = simulate_cases(300), []
    metrics = compute_json(cases, {"image": 0.2, "text": 0.8, "fusion": 0.5}, replicates=20)
    monkeypatch.setattr(plots, "_draw_dot", lambda _, x, y, colour: dots.append((x, y)))
    plots._draw_curves(cases, Metrics.model_validate(metrics))
    assert len(dots) == 6
    for head, roc, (recall, _) in zip(HEADS, dots[::2], dots[1::2], strict=True):
        of = {name: metrics["heads"][head][name]["value"] for name in FIGURES}
        assert roc == (pytest.approx(1 - of["specificity"]), of["sensitivity"])
        assert recall == of["sensitivity"]


@pytest.mark.parametrize(("count", "enough"), [(9, False), (10, True)])
def test_metric_has_an_interval_only_with_ten_or_more_cases(cases, count: int, enough: bool):
    asked = cases["text_used"] & (cases["severity_predicted"] != "")
    few = asked & (asked.cumsum() <= count)
    told = {name: cases[name].where(few, "") for name in ("consistency", "severity")}
    given = cases.assign(eczema=1.0, group_id=cases["case_id"], **told)
    metrics = compute_json(given, THRESHOLDS, replicates=100)
    consistency, severity = metrics["consistency"], metrics["severity"]
    assert consistency["cases"] == severity["cases"] == count
    too_few = "no interval: nothing was resampled, or too few groups"
    for figure in (consistency["macro_f1"], severity["kappa"], severity["mae"]):
        assert figure["value"] is not None
        assert (figure.get("reason") == too_few) == (not enough)
        assert enough or (figure["low"], figure["high"]) == (None, None)


def test_case_with_only_a_photo_is_judged_by_the_photo_threshold():
    cases = simulate_cases(300, seed=5)
    alone = cases["image_used"] & ~cases["text_used"]
    for image_threshold, found in ((0.0, 1.0), (1.1, 0.0)):
        thresholds = {"image": image_threshold, "text": 0.5, "fusion": 0.5}
        subset = compute_json(cases, thresholds, replicates=20)["subsets"]["text_missing"]
        assert subset["cases"] == alone.sum()
        assert subset["heads"]["fusion"]["sensitivity"]["value"] == found


def test_clinical_fields_of_fusion_are_recorded_if_there_are_any():
    for clinical, told in ((("age",), ["age"]), ((), None)):
        metrics = compute_metrics(
            simulate_cases(100),
            THRESHOLDS,
            label_threshold=0.5,
            seed=0,
            replicates=9,
            clinical=clinical,
        )
        assert metrics.clinical == told
        assert ("clinical" in metrics.model_dump(exclude_unset=True)) == bool(told)


def test_cross_validation_widens_the_intervals(cases):
    """Training sets vary, too: with five folds, by a factor of 1.5 (Nadeau and Bengio 2003)."""
    once, folds = (
        compute_json(each, THRESHOLDS, replicates=20)
        for each in (cases, cases.assign(fold=np.arange(len(cases)) % 5))
    )
    assert "widened" not in once["bootstrap"]
    assert folds["bootstrap"]["widened"] == 1.5
    for figure in ("sensitivity", "specificity"):
        narrow, wide = (found["heads"]["fusion"][figure] for found in (once, folds))
        assert wide["high"] - wide["low"] == pytest.approx(
            1.5 * (narrow["high"] - narrow["low"]), rel=0.05
        )
    one_left_out = cases.assign(fold=0)
    assert "widened" not in compute_json(one_left_out, THRESHOLDS, replicates=20)["bootstrap"]
