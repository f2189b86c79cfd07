"""Tests of the report page and the model card: metrics, caveats, checklists and privacy."""

import re
import string
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from test_documents import Page
from test_evaluation_results import THRESHOLDS, simulate_cases

from eczema_tf.config import Config
from eczema_tf.data.audit.audit import AuditReport
from eczema_tf.evaluation.intervals import Estimate
from eczema_tf.evaluation.predictions import PROBABILITY_COLUMNS
from eczema_tf.evaluation.records import FusionGain, Leaks, Metrics
from eczema_tf.evaluation.results import compute_metrics
from eczema_tf.evaluation.stress import StressTest
from eczema_tf.reporting.checklists import (
    AUTHOR,
    MET,
    NOT_APPLICABLE,
    Item,
    list_figures,
    load_checklists,
)
from eczema_tf.reporting.document import Bullets, Section, format_text
from eczema_tf.reporting.examples import ShownCase, build_examples
from eczema_tf.reporting.facts import Environment, RunData, RunFacts, list_caveats
from eczema_tf.reporting.formats import HEAD_NAMES, format_estimate
from eczema_tf.reporting.model_card import GAP, format_model_card
from eczema_tf.reporting.plots import write_figure, write_plots
from eczema_tf.reporting.report import format_report, say_plainly
from eczema_tf.schema import NEVER_SEEN_SKIN

COUNTS = {
    "rows": 9,
    "cases": 8,
    "groups": 7,
    "image_only": 1,
    "text_only": 2,
    "both": 6,
    "eczema_labelled": 9,
    "eczema_mean": 0.25,
    "consistency": {},
    "severity": {},
}
TOLD = {"clinical": ["age", "site"]}
NOTHING = {"clusters": 0, "across_groups": 0, "rows": 0, "cases": 0, "examples": []}
DUPLICATES = {
    "identical_photo": {**NOTHING, "clusters": 2},
    "near_photo": NOTHING,
    "identical_text": NOTHING,
    "near_text": NOTHING,
}
AUDIT = {
    "duplicates": DUPLICATES,
    "groups": {"before": 9, "after": 6, "merged": 3, "largest_cases": 2},
    "named_diagnoses": {
        "own": {
            "texts": 5,
            "share": 0.1,
            "share_of_positive": 0.125,
            "share_of_negative": None,
            "conditions": {"eczema": 5},
            "examples": ["r1"],
        }
    },
    "not_compared": {"plain_photos": 0, "chance_texts": 0, "template_texts": 0},
}
HEADINGS_OF_THE_HUB = [
    "Model Details",
    "Uses",
    "Bias, Risks, and Limitations",
    "How to Get Started with the Model",
    "Training Details",
    "Evaluation",
    "Model Card Contact",
]


def facts_of(config: dict[str, Any] | None = None, **data: Any) -> RunFacts:
    described = {
        "manifest": "/home/alice/secret/manifest.csv",
        "manifest_fingerprint": "0123abcd",
        "photos_fingerprint": "4567",
        "embeddings_fingerprint": None,
        "rejected_rows": 0,
        "counts": COUNTS,
        "sources": {"clinic": 9},
        "split_counts": {"train": COUNTS, "test": {**COUNTS, "rows": 0, "eczema_mean": None}},
        "provenance": {"attribution": "The clinic", "licence": "CC BY 4.0"},
    }
    environment = Environment(
        python="3.11",
        system="Linux",
        machine="x86_64",
        devices=["CPU"],
        packages={"tensorflow": "2.21.0", "keras": "3.15.1"},
    )
    return RunFacts(
        Config.parse(config or {}),
        RunData.model_validate({**described, **data}),
        environment,
        AuditReport.model_validate(AUDIT),
    )


@pytest.fixture(scope="module")
def plots(tmp_path_factory: pytest.TempPathFactory, metrics) -> Path:
    folder = tmp_path_factory.mktemp("plots")
    write_plots(folder, simulate_cases(), metrics)
    return folder


@pytest.fixture(scope="module")
def metrics() -> Metrics:
    return compute_metrics(
        simulate_cases(), THRESHOLDS, label_threshold=0.5, seed=0, replicates=100
    )


def text_of(metrics, facts, plots) -> tuple[str, str]:
    return " ".join(Page(format_report(metrics, facts, plots)).text), format_model_card(
        metrics, facts
    )


def test_page_and_card_list_the_clinical_fields_of_the_model(metrics, plots):
    told = {"data": {"clinical": {"age": "number", "site": "category"}}}
    for config, said in ((told, "age (number), site (category)"), ({}, "none")):
        page, card = text_of(metrics, facts_of(config), plots)
        assert f"clinical fields {said} \n fusion" in page
        assert f"clinical fields: {said}" in page  # in the TRIPOD+AI item "how predictors enter"
        assert f"| clinical fields | {said} |" in card
    says = "Fusion also uses age, site; photo alone and text alone do not."
    for metrics_of, count in ((metrics, 0), (metrics.model_copy(update=TOLD), 1)):
        page, card = text_of(metrics_of, facts_of(told), plots)
        assert (says in page, card.count(says)) == (count == 1, count)


def test_page_and_card_show_the_metrics_with_intervals(metrics, plots):
    page, card = text_of(metrics, facts_of(), plots)
    for head in metrics.heads.values():
        for figure in ("auroc", "sensitivity", "specificity", "f1"):
            assert format_estimate(getattr(head, figure)) in page
            assert format_estimate(getattr(head, figure)) in card
    assert format_estimate(metrics.consistency.macro_f1) in page
    assert f"{metrics.bayes_auroc['fusion']:.3f}" in page
    assert format_estimate(metrics.subsets["both_present"].heads["fusion"].auroc) in page


def test_page_is_well_formed_and_describes_its_roc_plot_and_tables(metrics, plots):
    page = Page(format_report(metrics, facts_of(), plots))
    roc, *_ = page.find("img")
    assert format_estimate(metrics.heads["fusion"].auroc) in roc["alt"]
    for table in page.find("div"):
        assert table.get("class") != "wide" or table["aria-label"]


def test_page_begins_with_a_summary_in_plain_words(metrics, plots):
    page = " ".join(Page(format_report(metrics, facts_of(), plots)).text)
    fusion = metrics.heads["fusion"]
    found, wrong = fusion.sensitivity, 1 - fusion.specificity.value
    said = f"about {100 * found.value:.0f} ({100 * found.low:.0f} to {100 * found.high:.0f}); of"
    assert page.index("In plain words") < page.index(said) < page.index("P(eczema) from")
    assert f"of 100 others, it would get about {100 * wrong:.0f} (" in page
    # the model does not have to: it may answer "cannot tell"
    assert "If the model had to answer every case: of 100 such" in page
    assert "Photo and text together are better than the better of the two alone." in page
    gain = FusionGain(over="image", cases=9, value=0.0, low=-0.1, high=0.1)
    said_of_nothing = " ".join(say_plainly(metrics.model_copy(update={"fusion_gain": gain})))
    assert "no better and no worse, as far as these" in said_of_nothing
    almost = metrics.heads["fusion"].model_copy(
        update={"sensitivity": Estimate(value=0.994, low=0.95, high=0.9999)}
    )
    (first, *_) = say_plainly(metrics.model_copy(update={"heads": {"fusion": almost}}))
    assert "would recognise about 99.4 (95 to 100);" in first


def test_examples_have_no_table_if_no_case_is_confidently_wrong(metrics):
    none = pd.DataFrame({"p_fusion": []})
    case = {"case_id": "a", "positive": True, "photos": 1, "text_used": False}
    some = pd.DataFrame([{**case, **dict.fromkeys(PROBABILITY_COLUMNS.values(), 0.9)}])
    right, wrong = build_examples({"right": some, "wrong": none}, metrics, {}).blocks[-2:]
    assert (len(right.rows), wrong) == (1, "Confidently wrong: none.")


def test_example_says_that_it_shows_the_first_of_several_texts(metrics):
    case = {"case_id": "a", "positive": True, "photos": 0, "text_used": True}
    cases = pd.DataFrame([{**case, **dict.fromkeys(PROBABILITY_COLUMNS.values(), 0.9)}])
    why = SimpleNamespace(heatmaps=(), text=None)
    for texts, said in ((1, "90%</"), (2, "90%, with the first of its 2 texts</")):
        shown = {"a": ShownCase(why, [], "dry skin", texts)}
        *_, example = build_examples({"right": cases}, metrics, shown).blocks
        assert said in example.html


def test_card_has_the_headings_of_the_hubs_template(metrics):
    card = format_model_card(metrics, facts_of())
    assert re.findall(r"^## (.*)$", card, re.MULTILINE) == HEADINGS_OF_THE_HUB
    assert {"Direct Use", "Out-of-Scope Use", "Recommendations", "Training Data", "Results"} <= set(
        re.findall(r"^### (.*)$", card, re.MULTILINE)
    )


def test_hub_library_reads_the_front_matter_and_its_results(metrics):
    hub = pytest.importorskip("huggingface_hub", reason="reads the card as the Hub does")
    card = hub.ModelCard(format_model_card(metrics, facts_of()))
    assert (card.data.license, card.data.license_name) == ("other", "CC BY 4.0")
    found = {result.metric_name: result.metric_value for result in card.data.eval_results}
    for modality, name in HEAD_NAMES.items():
        expected = metrics.heads[modality].auroc.value
        assert found[f"AUROC, {name}"] == pytest.approx(expected, abs=5e-5)
    built_in = hub.ModelCard(format_model_card(metrics, facts_of(sources={"synthetic": 9})))
    assert built_in.data.license == "apache-2.0"
    assert NEVER_SEEN_SKIN in built_in.text


def test_checklists_have_the_official_item_numbers():
    tripod, claim = load_checklists().values()
    assert [item.item for item in claim] == list(range(1, 45))
    parts = {3: 3, 5: 2, 6: 3, 8: 3, 9: 3, 12: 7, 18: 6, 20: 3, 23: 2, 27: 3}
    assert [str(item.item) for item in tripod] == [
        f"{number}{part}"
        for number in range(1, 28)
        for part in string.ascii_lowercase[: parts.get(number, 0)] or [""]
    ]


def test_checklist_item_is_met_only_if_its_figures_are_known(metrics, plots):
    """Every item names the figures that it needs; the author fills in what no run can know."""
    figures = list_figures(metrics, facts_of(sources={"synthetic": 9}))
    later = {"shift", "recalibration", "external", "robustness", "flow", "label", "by_source"}
    optional = {"cannot_tell", "subgroups"}
    for items in load_checklists().values():
        for item in items:
            asked = (item.met, item.not_applicable, item.gives)
            named = {
                name for text in asked for _, name, *_ in string.Formatter().parse(text) if name
            }
            assert named <= set(figures) | later | optional, item.item
    item = Item(
        item=1, asks="x", met="AUROC {aurocs}", not_applicable="{built_in}", gives="{cases}"
    )
    assert item.fill({"aurocs": "0.9"}) == (MET, "AUROC 0.9")
    assert item.fill({"built_in": "nobody", "cases": "5"}) == (NOT_APPLICABLE, "nobody")
    assert item.fill({"cases": "5"}) == (AUTHOR, "5")
    assert item.fill({}) == (AUTHOR, "-")
    # a typo in the YAML is not an unknown figure
    with pytest.raises(ValueError, match="expected '}'"):
        item.model_copy(update={"met": "AUROC {aurocs"}).fill({"aurocs": "0.9"})
    page = " ".join(Page(format_report(metrics, facts_of(), plots)).text)
    assert re.search(
        r"TRIPOD\+AI: 52 items, \d+ met by this run, \d+ not applicable, \d+ for", page
    )
    assert (
        format_estimate(metrics.heads["fusion"].auroc)
        in list_figures(metrics, facts_of())["aurocs"]
    )


def test_page_and_card_describe_the_data_and_their_licence(metrics, plots):
    for text in text_of(metrics, facts_of(), plots):
        assert "The clinic" in text
        assert "CC BY 4.0" in text
        assert "0123abcd" in text
        assert "identical photo: 2; groups joined because of them: 3" in text
        assert "12.5%" in text


def test_page_and_card_contain_no_local_path(metrics, plots):
    config = {
        "model": {"image": {"preset": "/home/alice/presets/lite0"}},
        "train": {"cache_folder": "/home/alice/cache"},
    }
    for text in text_of(metrics, facts_of(config), plots):
        assert "lite0, pretrained" in text
        assert "alice" not in text


@pytest.mark.parametrize(
    ("config", "data", "said"),
    [
        ({}, {"sources": {"synthetic": 9}}, "say nothing about patients"),
        ({}, {"sources": {"template": 9}}, "not the patients' own words"),
        (
            {"split": {"folds": 5, "repeats": 2}},
            {"split_counts": None},
            "by 10 models, none of which is the model",
        ),
        ({"train": {"refit": True, "keep": "last"}}, {}, "trained again"),
        (
            {"model": {"embedding_units": 0, "fusion": "late", "text": {"pooling": "mean"}}},
            {},
            "linear heads",
        ),
        ({"data": {"embeddings": "e.npz"}}, {}, "precomputed embeddings"),
        ({}, {"template_texts": 9}, "not the patients' own words"),
        (
            {},
            {"not_kept": {"nobody replied": 0, "it was unclear": 7, "it names it": 2}},
            "9 cases of the source were left out; nothing here is about them (7: it was",
        ),
        ({}, {"provenance": {"label": "majority: most of the vote"}}, "Label: majority: most of"),
        ({}, {"rejected_rows": 4}, "4 bad rows were left out"),
    ],
)
def test_page_and_card_state_the_caveats_of_the_run(metrics, plots, config, data, said):
    for text in text_of(metrics, facts_of(config, **data), plots):
        assert said in text


def test_stand_in_task_is_named_instead_of_eczema(tmp_path: Path):
    cases = simulate_cases(400).assign(consistency="", severity="")
    metrics = compute_metrics(
        cases, THRESHOLDS, label_threshold=0.5, seed=0, replicates=20, positive_class="malignant"
    )
    write_plots(tmp_path, cases, metrics)
    facts = facts_of(positive_class="malignant")
    found = facts.audit.named_diagnoses["own"].model_copy(update={"conditions": {}})
    facts.audit.named_diagnoses["own"] = found
    for text in text_of(metrics, facts, tmp_path):
        assert "P(malignant) from" in text
        assert "A stand-in task, malignant or not" in text
        own_words = " ".join(text.split()).replace(facts.data.notice, "")
        assert not re.search(r"\beczema\b", own_words, re.IGNORECASE)
    assert "where its answers say eczema, read malignant" in facts.data.notice


def test_report_is_about_the_evaluated_data_not_the_training_data(metrics, plots):
    """A model trained on built-in data may be evaluated on real people, and the other way round."""
    about_nobody, not_asked = "These results say nothing about patients", "without any real person"
    for learned, judged, nobody in (
        ("synthetic", "clinic", False),
        ("clinic", "synthetic", True),
        ("synthetic", "synthetic", True),
    ):
        facts = facts_of(sources={learned: 9})
        facts = replace(facts, judged=facts_of(sources={judged: 455}, rejected_rows=3).data)
        apart = metrics.model_copy(update={"leaks": Leaks(leaks=0, examples=[])})
        text = " ".join(Page(format_report(apart, facts, plots)).text)
        assert (about_nobody in text) == nobody
        assert (not_asked in text) == nobody
        assert f"{judged} (455)" in text
        assert "one reader for all photos; 3 bad rows left out" in text
        assert "cases that the run has not seen" in text
        unknown = " ".join(Page(format_report(metrics, facts, plots)).text)
        assert "cases that the run has not seen" not in unknown


def test_checklist_figures_follow_the_settings_of_the_run(metrics):
    plain = list_figures(metrics, facts_of())
    assert plain["preparation"].startswith("one reader for all photos; 0 bad rows left out; dupl")
    assert plain["initial"] == "the rest drawn with seed 0"
    given = {"embeddings": "e.npz", "merge_duplicates": False}
    other = list_figures(metrics, facts_of({"data": given, "train": {"base_run": "runs/first"}}))
    assert other["preparation"] == "embeddings in place of photos; 0 bad rows left out"
    assert other["initial"] == "all from the run that it builds on"


def test_splits_are_described_only_if_known_to_be_disjoint(metrics):
    leaky = metrics.model_copy(update={"leaks": Leaks(leaks=1, examples=["a and b"])})
    facts = facts_of()
    assert list_figures(metrics, facts)["splits"] == "cases: 8 train, 8 test"
    folds = facts_of({"split": {"folds": 3}}, split_counts=None)
    assert list_figures(metrics, folds)["splits"] == "8 cases in 3 folds"
    assert "disjoint" in list_figures(metrics, folds)
    for result, known in ((leaky, facts), (leaky, folds), (metrics, facts_of(split_counts=None))):
        assert not {"splits", "disjoint"} & list_figures(result, known).keys()


def test_new_card_has_a_gap_for_its_author(metrics):
    """The gap distinguishes it from a card that its author has filled in."""
    assert GAP in format_model_card(metrics, facts_of())


def test_plot_titles_are_not_parsed_as_formulas(tmp_path: Path):
    figure = Figure()
    figure.suptitle(r"US$ and \none AU$")  # would be an error if parsed as a formula
    write_figure(tmp_path / "a.png", figure)
    assert (tmp_path / "a.png").stat().st_size > 0


def test_stress_tests_count_as_a_robustness_analysis(metrics):
    assert "robustness" not in list_figures(metrics, facts_of())
    test = StressTest(changed="image", cases=9, points=[])
    tried = metrics.model_copy(update={"stress_tests": {"photo_missing": test}})
    assert list_figures(tried, facts_of())["robustness"] == "stress tests: photo missing"


def test_page_and_card_warn_of_leaks_that_were_allowed(metrics, plots):
    leaks = Leaks(leaks=2, examples=["identical photo in a (train) and b (test)"])
    leaky = metrics.model_copy(update={"leaks": leaks})
    for text in text_of(leaky, facts_of(), plots):
        assert "were also in training or validation (2 found), so these results are too" in text
    page, card = text_of(leaky, facts_of(), plots)
    assert ("identical photo in a (train)" in page, "identical photo in a" in card) == (True, False)
    assert "were kept apart" not in card
    assert "some of these cases, so these results are too good" in page
    assert "items, " in page
    assert all("(too good: leaks)" in line for line in page.split("<caption>") if "items, " in line)
    assert "results: []" in card  # in the front matter, which has no room for a warning
    clean = metrics.model_copy(update={"leaks": Leaks(leaks=0, examples=[])})
    page, card = text_of(clean, facts_of(), plots)
    assert "too good" not in page + card
    assert "were kept apart" in card


def test_caveats_name_few_cases_missing_photos_and_undefined_metrics(tmp_path: Path):
    cases = simulate_cases(60)
    cases = cases[cases["text_used"]].assign(image_used=False, p_image=float("nan"))
    metrics = compute_metrics(cases, THRESHOLDS, label_threshold=0.5, seed=0, replicates=20)
    write_plots(tmp_path, cases, metrics)
    for text in text_of(metrics, facts_of(), tmp_path):
        assert "No photo was looked at" in text
        assert "of the cases are eczema, so the intervals are wide" in text
        assert "no labelled case has a photo" in text


def test_caveat_about_wide_intervals_counts_the_rarer_class(metrics):
    fusion = metrics.heads["fusion"]
    for positives, said in (
        (fusion.cases - 5, "Only 5 of the cases are not eczema, so the intervals are wide."),
        (fusion.cases, "No case is not eczema: how well the two are told apart is not known."),
    ):
        heads = {**metrics.heads, "fusion": fusion.model_copy(update={"positives": positives})}
        assert said in list_caveats(facts_of(), metrics.model_copy(update={"heads": heads}))


def test_text_only_model_is_not_described_as_using_photos(metrics):
    facts = facts_of()
    data = facts.data.model_copy(update={"trained_on": ["text"]})
    figures = list_figures(metrics, replace(facts, data=data))
    assert figures["image_encoder"] == "none: no photo in training"
    assert figures["predictors"] == "a description in words"
    card = format_model_card(metrics, replace(facts, data=data))
    assert "takes a description of symptoms. It gives the probability" in card
    assert "eczema or not, from text\n" in card
    assert "--model DIR --text TEXT\n" in card
    assert "predict(texts=texts)" in card


def test_card_shows_how_to_ask_a_model_only_with_what_it_takes(metrics):
    whole = format_model_card(metrics, facts_of())
    assert "takes a photo of skin, a description of symptoms, or both. It gives" in whole
    assert "--model DIR --image FILE --text TEXT\n" in whole
    embeddings = format_model_card(metrics, facts_of({"data": {"embeddings": "e.npz"}}))
    assert "takes an embedding of a photo of skin, a description" in embeddings
    assert "--model DIR --text TEXT\n" in embeddings
    # a cross-validation leaves no model to ask
    assert "How to Get Started" not in format_model_card(metrics, facts_of({"split": {"folds": 3}}))


def test_undefined_metrics_are_not_listed_for_the_checklists(metrics):
    none = Estimate(value=None, low=None, high=None, reason="one class only")
    fusion = metrics.heads["fusion"].model_copy(update={"auroc": none})
    alone = metrics.model_copy(update={"heads": {**metrics.heads, "fusion": fusion}})
    assert {"measures", "intervals"} <= list_figures(metrics, facts_of()).keys()
    assert not {"measures", "intervals", "aurocs"} & list_figures(alone, facts_of()).keys()


def test_escape_sequences_in_names_do_not_reach_the_terminal():
    said = format_text([Section("One", [Bullets(["\x1b[2J clinic"])])])
    assert "\x1b" not in said
    assert "clinic" in said


def test_run_without_an_audit_still_has_a_report(metrics, plots):
    facts = facts_of()
    bare = RunFacts(facts.config, facts.data, facts.environment, None)
    for text in text_of(metrics, bare, plots):
        assert "Clusters of duplicates" not in text


def test_report_names_only_the_first_leaks(metrics, plots):
    examples = [f"photo {number} in two splits" for number in range(20)]
    leaky = metrics.model_copy(update={"leaks": Leaks(leaks=200, examples=examples)})
    page, _ = text_of(leaky, facts_of(), plots)
    assert "photo 2 in two splits" in page
    assert "photo 3 in two splits" not in page


def test_caveat_says_that_no_text_was_evaluated(tmp_path: Path):
    cases = simulate_cases(60)
    cases = cases[cases["image_used"]].assign(text_used=False, p_text=float("nan"))
    metrics = compute_metrics(cases, THRESHOLDS, label_threshold=0.5, seed=0, replicates=20)
    caveats = " ".join(list_caveats(facts_of(), metrics))
    assert "No text was looked at: nothing is known about texts." in caveats
    assert "No photo was looked at" not in caveats


def test_caveat_names_factors_that_could_not_be_compared(metrics):
    """A factor is left out if no two of its subgroups have enough cases."""
    for few, said in ((False, "skin tone, age group"), (True, "skin tone, age group, sex")):
        cases = simulate_cases(400)
        chosen = cases.index < 8 if few else cases.index % 2 == 0
        cases = cases.assign(sex=np.where(chosen, "female", "male"))
        found = compute_metrics(cases, THRESHOLDS, label_threshold=0.5, seed=0, replicates=20)
        assert "sex" in found.subgroups.factors
        assert f"No comparison by {said} was possible" in " ".join(list_caveats(facts_of(), found))


@pytest.mark.parametrize("others", [{}, {"clinic": 9}])
def test_caveat_about_built_in_data_holds_if_other_data_are_mixed_in(metrics, others):
    caveats = list_caveats(facts_of(sources={"synthetic": 9, **others}), metrics)
    assert any("say nothing about patients" in caveat for caveat in caveats)
