"""`model_card.md`: what the model is, what it is for, how good it is and where care is needed.

The nine headings are those of figure 1 in Mitchell et al. 2019, "Model Cards for Model Reporting",
in its order.
"""

from eczema_tf.evaluation.records import Metrics
from eczema_tf.reporting.document import Block, Bullets, Section, format_markdown
from eczema_tf.reporting.facts import (
    RunFacts,
    describe_data,
    list_caveats,
    tabulate_data,
    tabulate_settings,
)
from eczema_tf.reporting.probability_tables import tabulate_calibration, tabulate_points
from eczema_tf.reporting.subgroup_tables import build_subgroups
from eczema_tf.reporting.tables import (
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
        metrics: Of the cases kept for the final judgement.
        facts: Of the run.

    Returns:
        Markdown.
    """
    name = metrics.positive_class
    results: list[Block] = [
        tabulate_aurocs(metrics),
        tabulate_decisions(metrics),
        *tabulate_points(metrics),
        *tabulate_calibration(metrics),
        Bullets([describe_gain(metrics), *describe_labels(metrics)]),
        *list_undefined(metrics),
        tabulate_subsets(metrics),
        *tabulate_wordings(metrics),
    ]
    if metrics.subgroups:
        results += build_subgroups(metrics.subgroups, name)
    caveats = Bullets([*list_caveats(facts, metrics), *_RECOMMENDATIONS])
    sections = [
        Section("Model details", [_MODEL_DETAILS.format(name), tabulate_settings(facts)]),
        Section("Intended use", [Bullets([*_USE, _OTHERS.format(name)])]),
        Section("Factors", [Bullets(_FACTORS)]),
        Section("Metrics", [Bullets(_METRICS)]),
        Section(
            "Evaluation data",
            [
                *warn_of_leaks(metrics),
                describe_sample(metrics),
                *describe_texts(metrics),
                _SAME_DATA,
            ],
        ),
        Section("Training data", [tabulate_data(facts), Bullets(describe_data(facts))]),
        Section("Quantitative analyses", mark_leaks(metrics, results)),
        Section("Ethical considerations", [Bullets(_ETHICS)]),
        Section("Caveats and recommendations", [caveats]),
    ]
    return format_markdown(f"Model card: {name} or not", sections, facts.data.notice)


_MODEL_DETAILS = (
    "A network that takes a photo of skin, a description of symptoms, or both, and gives the"
    " probability that it is {0} from the photo, from the text and from both. Where the training"
    " data tell, also what the text suggests ({0}, other, unclear) and the severity (mild,"
    " moderate, severe)."
)
_USE = (
    (
        "Meant for teaching and for research on models that join photos and text, by people who"
        " read this card."
    ),
    (
        "Not meant for patients, for triage, for a diagnosis or for choosing a treatment, with or"
        " without a doctor in between."
    ),
)
_OTHERS = (
    "Not meant for other skin conditions: whatever is not {} is one class, dangerous ones among it."
)
_FACTORS = (
    (
        "May matter: skin tone, age, sex, body site, stage of the disease, light, camera, language,"
        " and how people describe symptoms."
    ),
    (
        "Evaluated: whether photo and text are there, and how ambiguous each is; of skin tone, age,"
        " sex, source, number of photos and length of the text, what the data tell."
    ),
)
_METRICS = (
    (
        "AUROC: how often a positive case gets a higher probability than a negative one, of cases"
        " scored by one model; no threshold needed."
    ),
    (
        "Sensitivity, specificity and F1 at one threshold a head, chosen on validation cases"
        " (highest sensitivity + specificity)."
    ),
    (
        "In brackets the interval from resampling groups (patients, authors), since cases of one"
        " group are alike."
    ),
)
_SAME_DATA = (
    "The cases come from the same source as the training data, in groups that were kept apart"
    " from it."
)
_ETHICS = (
    (
        "Photos of skin and words about symptoms are health data: they are not part of this card,"
        " of the reports or of the logs."
    ),
    (
        "A wrong 'no' may keep somebody from seeing a doctor, a wrong 'yes' may have the wrong"
        " thing treated."
    ),
    (
        "Public collections of skin photos hold few dark skin tones; a good value over all cases"
        " can hide a bad one for some people."
    ),
)
_RECOMMENDATIONS = (
    (
        "Before any use on other people, evaluate on labelled cases of theirs: python -m"
        " eczema_tf.evaluate --manifest."
    ),
)
