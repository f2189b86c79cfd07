"""What every format shows of the results."""

from dataclasses import replace

from eczema_tf.evaluation.records import Metrics
from eczema_tf.reporting.abstention_tables import tabulate_abstention
from eczema_tf.reporting.document import Block, Bullets, Section
from eczema_tf.reporting.external_tables import build_external
from eczema_tf.reporting.probability_tables import (
    tabulate_calibration,
    tabulate_net_benefit,
    tabulate_points,
)
from eczema_tf.reporting.stress_tables import build_stress
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
    tabulate_labels,
    tabulate_subsets,
    tabulate_wordings,
    warn_of_leaks,
)

EXTERNAL = "Other data than the run's own"
ABSTENTION = "When it cannot tell"
SUBGROUPS = "Is it as good for everybody?"


def build_results(metrics: Metrics) -> list[Section]:
    """Builds what every format shows of the results."""
    heads: list[Block] = [
        *warn_of_leaks(metrics),
        describe_sample(metrics),
        *describe_texts(metrics),
        tabulate_aurocs(metrics),
        tabulate_decisions(metrics),
        describe_gain(metrics),
        *list_undefined(metrics),
    ]
    if metrics.bayes_auroc:
        heads.append(
            "Limit: the AUROC (of severity, the best kappa) of the exact posterior on the same"
            " cases, which no model can pass but by chance; gap: what is missing, paired."
        )
    sections = [Section(f"P({metrics.positive_class})", heads)]
    if metrics.external:
        sections.append(Section(EXTERNAL, build_external(metrics.external)))
    sections += [
        Section("Are the probabilities right?", tabulate_calibration(metrics)),
        Section(
            "What the answers are worth", [*tabulate_points(metrics), tabulate_net_benefit(metrics)]
        ),
        *(
            [Section(ABSTENTION, tabulate_abstention(metrics.abstention))]
            if metrics.abstention
            else []
        ),
        Section("Where fusion has most, or nothing, to do", [tabulate_subsets(metrics)]),
        *build_stress(metrics),
    ]
    if wordings := tabulate_wordings(metrics):
        sections.append(Section("Known words and new ones", wordings))
    if metrics.subgroups:
        blocks = build_subgroups(metrics.subgroups, metrics.positive_class)
        sections.append(Section(SUBGROUPS, blocks))
    sentences, tables = describe_labels(metrics), tabulate_labels(metrics)
    if sentences:
        sections.append(Section("Consistency and severity", [Bullets(sentences), *tables]))
    return [replace(section, blocks=mark_leaks(metrics, section.blocks)) for section in sections]
