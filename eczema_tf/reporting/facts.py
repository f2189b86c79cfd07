"""What is known about a run beside its figures, in words: settings, data, and what the figures do not say.

The report page and the model card say it with the same words.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eczema_tf import __version__
from eczema_tf.config import Config
from eczema_tf.reporting.document import Table

FEW_POSITIVES = 100
_TEMPLATE = "template"  # the manifest's `source` where texts are made from flags
_BUILT_IN = "synthetic"
_COUNTS = {
    "rows": "rows",
    "cases": "cases",
    "groups": "groups",
    "image_only": "photo alone",
    "text_only": "text alone",
    "both": "both",
}


@dataclass(frozen=True)
class RunFacts:
    """What a run folder says.

    Attributes:
        config: Of the run.
        data: As in `data.json`.
        environment: As in `environment.json`.
        audit: As in `audit.json`; empty if the run has none.
    """

    config: Config
    data: Mapping[str, Any]
    environment: Mapping[str, Any]
    audit: Mapping[str, Any]


def tabulate_settings(facts: RunFacts) -> Table:
    """Lists what made the model. Local paths are cut to their last part."""
    model, train, packages = facts.config.model, facts.config.train, facts.environment["packages"]
    embedding = (
        f"{model.embedding_units} units each" if model.embedding_units else "none: linear heads"
    )
    kept = {
        "best": f"best of {train.epochs} epochs by validation AUROC",
        "last": f"last of {train.epochs} epochs",
    }[train.keep]
    rows = [
        ("image encoder", _name_image_encoder(facts)),
        ("text encoder", _name_encoder(model.text.preset, model.text.architecture)),
        ("fusion", model.fusion),
        ("embedding", embedding),
        (
            "training",
            f"{kept}, batches of {train.batch_size}, learning rate {train.learning_rate:g}",
        ),
        ("fine-tuning", f"{train.fine_tune.epochs} epochs" if train.fine_tune.epochs else "none"),
        ("seed", str(facts.config.seed)),
        (
            "software",
            ", ".join(
                [
                    f"eczema_tf {__version__}",
                    *(f"{name} {packages[name]}" for name in ("tensorflow", "keras")),
                ]
            ),
        ),
        ("device", ", ".join(facts.environment["devices"])),
    ]
    return Table("What made the model", ("setting", "value"), rows)


def _name_image_encoder(facts: RunFacts) -> str:
    image = facts.config.model.image
    if facts.config.data.embeddings:
        return "precomputed embeddings instead of photos"
    return _name_encoder(image.preset or image.saved_model, image.architecture)


def _name_encoder(pretrained: str | None, architecture: str) -> str:
    return f"{Path(pretrained).name}, pretrained" if pretrained else f"{architecture}, from scratch"


def tabulate_data(facts: RunFacts) -> Table:
    """Counts what the model was trained, validated and tested with, or cross-validated on."""
    counts = facts.data.get("split_counts") or {"all": facts.data["counts"]}
    rows = [
        [split, *(str(count[name]) for name in _COUNTS), _share(count["eczema_mean"])]
        for split, count in counts.items()
    ]
    return Table(
        "Rows (one a photo) and what they hold", ("split", *_COUNTS.values(), "mean label"), rows
    )


def _share(mean: float | None) -> str:
    return "-" if mean is None else f"{mean:.1%}"


def describe_data(facts: RunFacts) -> Iterator[str]:
    """Says where the data come from, under which terms, and what the audit found; one sentence each."""
    provenance = facts.data.get("provenance") or {}
    sources = [f"{name or 'not said'} ({count})" for name, count in facts.data["sources"].items()]
    yield f"Sources of the rows: {', '.join(sources)}."
    for name in ("attribution", "licence"):
        if name in provenance:
            yield f"{name.capitalize()}: {provenance[name]}."
    yield f"Fingerprint of the manifest: {facts.data['manifest_fingerprint']}."
    if facts.data["rejected_rows"]:
        yield f"{facts.data['rejected_rows']} bad rows were left out."
    if facts.audit:
        yield from _describe_audit(facts.audit)


def _describe_audit(audit: Mapping[str, Any]) -> Iterator[str]:
    found = [
        f"{kind.replace('_', ' ')}: {what['clusters']}"
        for kind, what in audit["duplicates"].items()
        if what["clusters"]
    ]
    yield (
        f"Clusters of duplicates found by the audit: {', '.join(found) or 'none'}; groups joined"
        f" for them: {audit['groups']['merged']}."
    )
    own = audit["named_diagnoses"]["own"]
    if own["texts"]:
        positive, negative = own["share_of_positive"] or 0.0, own["share_of_negative"] or 0.0
        yield (
            f"{own['texts']} texts name a skin diagnosis ({positive:.1%} of those of positive"
            f" cases, {negative:.1%} of negative ones): the answer may be read off them."
        )


def list_caveats(facts: RunFacts, metrics: Mapping[str, Any]) -> Iterator[str]:
    """Says what the figures do not say; one sentence each."""
    sources, config = facts.data["sources"], facts.config
    if _BUILT_IN in sources:
        yield (
            "Built-in data: rendered photos and written complaints. These figures say nothing about"
            " patients."
        )
    if _TEMPLATE in sources:
        yield (
            "Texts are templates made from answers to a questionnaire, not the patients' own words."
        )
    if config.split.folds:
        models = config.split.folds * config.split.repeats
        yield (
            f"Figures of a cross-validation: they judge a way of training by {models} models, none"
            " of which is the model."
        )
    if config.train.refit:
        yield (
            "Thresholds were chosen on validation cases; then the model was trained anew on"
            " training and validation cases together."
        )
    yield from _list_scarcities(metrics)
    yield (
        "No figures by skin tone, age or sex: do not take it that the model is as good for"
        " everybody."
    )
    yield (
        "Only data like these are covered: another camera, country, skin tone mix or way of asking"
        " can make the figures worse."
    )


def _list_scarcities(metrics: Mapping[str, Any]) -> Iterator[str]:
    heads = {"photos": metrics["heads"]["image"], "texts": metrics["heads"]["text"]}
    for things, head in heads.items():
        if not head["cases"]:
            yield f"No case had {things}: nothing is known about them."
    positives = metrics["heads"]["fusion"]["positives"]
    if positives < FEW_POSITIVES:
        yield f"Only {positives} of the cases are eczema, so the intervals are wide."


def describe_leaks(metrics: Mapping[str, Any]) -> str:
    """Returns a warning if the splits leaked and that was allowed, else an empty string."""
    leaks = metrics.get("leaks") or {"leaks": 0}
    if not leaks["leaks"]:
        return ""
    examples = "; ".join(leaks["examples"][:3])
    return (
        f"{leaks['leaks']} leaks between the splits were allowed (--allow-leaks): these figures are"
        f" too good. For instance: {examples}."
    )
