"""`model_card.md`: what the model is, what it is for, how good it is and where care is needed.

Follows Mitchell et al. 2019, "Model Cards for Model Reporting", in the Hugging Face Hub's format:
YAML front matter, then the headings of the Hub's template.
"""

import yaml

from eczema_tf.evaluation.records import Metrics
from eczema_tf.reporting.comparison_tables import build_subgroups
from eczema_tf.reporting.document import Block, Bullets, Section, format_markdown
from eczema_tf.reporting.facts import (
    RunFacts,
    describe_data,
    find_looked_at,
    list_caveats,
    tabulate_data,
    tabulate_settings,
)
from eczema_tf.reporting.formats import HEAD_NAMES
from eczema_tf.reporting.probability_tables import tabulate_calibration, tabulate_points
from eczema_tf.reporting.tables import (
    describe_clinical,
    describe_gain,
    describe_labels,
    describe_sample,
    describe_texts,
    list_undefined,
    mark_leaks,
    tabulate_aurocs,
    tabulate_decisions,
    tabulate_subsets,
    tabulate_wordings,
    warn_of_leaks,
)


def format_model_card(metrics: Metrics, facts: RunFacts) -> str:
    """Formats the model card.

    Args:
        metrics: Of the cases kept for the final evaluation.
        facts: Of the run.

    Returns:
        YAML front matter, then Markdown.
    """
    name = metrics.positive_class
    results: list[Block] = [
        tabulate_aurocs(metrics),
        tabulate_decisions(metrics),
        *tabulate_points(metrics),
        *tabulate_calibration(metrics),
        Bullets([describe_gain(metrics), *describe_clinical(metrics), *describe_labels(metrics)]),
        *list_undefined(metrics),
        tabulate_subsets(metrics),
        *tabulate_wordings(metrics),
        *(build_subgroups(metrics.subgroups, name) if metrics.subgroups else ()),
    ]
    # the ids of leaked cases may be patients', so the card does not name them
    apart = warn_of_leaks(metrics, named=False) or [_SAME_DATA]
    judged_on = [*apart, describe_sample(metrics), *describe_texts(metrics)]
    sections = [
        Section("Model Details", [_describe_model(name, facts)]),
        Section("Uses", []),
        Section("Direct Use", [_DIRECT_USE], level=3),
        Section(
            "Out-of-Scope Use", [Bullets([said.format(name) for said in _OUT_OF_SCOPE])], level=3
        ),
        Section(
            "Bias, Risks, and Limitations", [Bullets([*list_caveats(facts, metrics), *_RISKS])]
        ),
        Section("Recommendations", [_RECOMMENDATION], level=3),
        *_describe_start(facts),
        Section("Training Details", []),
        Section("Training Data", [tabulate_data(facts), Bullets(describe_data(facts))], level=3),
        Section("Training Procedure", [tabulate_settings(facts)], level=3),
        Section("Evaluation", []),
        Section("Testing Data", judged_on, level=3),
        Section("Factors", [Bullets(_FACTORS)], level=3),
        Section("Metrics", [Bullets(_METRICS)], level=3),
        Section("Results", mark_leaks(metrics, results), level=3),
        Section("Model Card Contact", [GAP]),
    ]
    front = yaml.safe_dump(_describe_to_hub(metrics, facts), sort_keys=False, allow_unicode=True)
    card = format_markdown(f"Model card: {name} or not", sections, facts.data.notice)
    return f"---\n{front}---\n\n{card}"


def _describe_to_hub(metrics: Metrics, facts: RunFacts) -> dict[str, object]:
    """Returns the front matter that the Hugging Face Hub reads, `model-index` included."""
    data, heads = facts.data, metrics.heads.items()
    task = f"{metrics.positive_class} or not"
    sources = " and ".join(HEAD_NAMES[name] for name in find_looked_at(facts))
    measured = [
        {"type": kind, "value": round(found.value, 4), "name": f"{name}, {HEAD_NAMES[modality]}"}
        for modality, head in heads
        for kind, name, found in (
            ("roc_auc", "AUROC", head.auroc),
            ("recall", "sensitivity", head.sensitivity),
            ("specificity", "specificity", head.specificity),
            ("f1", "F1", head.f1),
        )
        if found.value is not None
    ]
    if warn_of_leaks(metrics):  # a list of numbers has no room for a warning
        measured = []
    licence = {"license": "apache-2.0"}
    if not data.built_in:  # the data's licence decides what may be done with the weights
        licence = {"license": "other", "license_name": "; ".join(data.licences)}
    result = {
        "task": {"type": "image-classification", "name": f"{task}, from {sources}"},
        "dataset": {"type": "custom", "name": data.name_sources(), "split": metrics.split},
        "metrics": measured,
    }
    return {
        "language": ["en"],
        **licence,
        "library_name": "keras",
        "pipeline_tag": "image-classification",
        "tags": [metrics.positive_class, "dermatology", "multimodal", "not-for-medical-use"],
        "metrics": ["roc_auc", "recall", "specificity", "f1", "brier_score"],
        "model-index": [{"name": task, "results": [result] if measured else []}],
    }


def _describe_model(name: str, facts: RunFacts) -> str:
    """Says what the model takes and gives."""
    photo = "a photo of skin"
    if facts.config.data.embeddings is not None:
        photo = f"an embedding of {photo}"
    takes = {"image": photo, "text": "a description of symptoms"}
    looked_at = find_looked_at(facts)
    gives = f"the probability that the case is {name}"
    if len(looked_at) > 1:
        gives += " from the photo, from the text and from both"
        takes["text"] += ", or both"
    labelled = ["the severity (mild, moderate, severe)"]
    if "text" in looked_at:
        labelled.insert(0, f"what the text suggests ({name}, other, unclear)")
    return (
        f"A neural network that takes {', '.join(takes[modality] for modality in looked_at)}. It"
        f" gives {gives}. Where the training data have labels for them, it also gives"
        f" {' and '.join(labelled)}."
    )


def _describe_start(facts: RunFacts) -> list[Section]:
    """Says how to ask the model; nothing of a cross-validation, which leaves no model to ask."""
    if facts.config.split.folds:
        return []
    taken = [  # what a client can send
        name
        for name in find_looked_at(facts)
        if name == "text" or facts.config.data.embeddings is None
    ]
    if not taken:
        return []
    options = {"image": "--image FILE", "text": "--text TEXT"}
    arguments = {"image": "photos=photos", "text": "texts=texts"}
    command = " ".join(options[name] for name in taken)
    call = ", ".join(arguments[name] for name in taken)
    steps = [
        f"On the command line: python -m eczema_tf.predict --model DIR {command}",
        "On a web page: python -m eczema_tf.serve --model DIR",
        f"In Python: eczema_tf.load_export(DIR).predict({call}) returns a DataFrame.",
    ]
    return [Section("How to Get Started with the Model", [Bullets(steps)])]


_DIRECT_USE = (
    "The model is meant for teaching and for research on models that combine photos and text, by"
    " people who read this card."
)
_OUT_OF_SCOPE = (
    (
        "The model is not meant for patients, for triage, for a diagnosis or for choosing a"
        " treatment, with or without a doctor in between."
    ),
    (
        "It is not meant for other skin conditions: everything that is not {} is one class, which"
        " includes dangerous conditions."
    ),
)
GAP = "For the author to fill."
_FACTORS = (
    (
        "Factors that may matter: skin tone, age, sex, body site, stage of the disease, light,"
        " camera, language, and how people describe symptoms."
    ),
    (
        "Factors that were evaluated: whether photo and text are present, and how ambiguous each"
        " is; and, as far as the data record them, skin tone, age, sex, source, number of photos"
        " and length of the text."
    ),
)
_METRICS = (
    (
        "AUROC: how often a positive case gets a higher probability than a negative case scored by"
        " the same model. It needs no threshold."
    ),
    (
        "Sensitivity, specificity and F1: at one threshold per head, chosen on validation cases"
        " (highest sensitivity + specificity)."
    ),
    (
        "In brackets: the interval over groups (patients, authors), since cases of one group are"
        " alike."
    ),
)
_SAME_DATA = (
    "The cases come from the same source as the training data, but from groups that were kept apart"
    " from it."
)
_RISKS = (
    (
        "Photos of skin and words about symptoms are health data: they are not part of this card"
        " or of the logs; a report has them only if `evaluate --with-photos` put them there."
    ),
    (
        "A wrong 'no' may keep somebody from seeing a doctor; a wrong 'yes' may get the wrong"
        " condition treated."
    ),
    (
        "Public collections of skin photos contain few dark skin tones; a good value over all cases"
        " can hide a bad one for some people."
    ),
)
_RECOMMENDATION = (
    "Before any use on other people, evaluate the model on labelled cases from them: python -m"
    " eczema_tf.evaluate --manifest."
)
