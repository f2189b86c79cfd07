"""What is known about a run besides its results: settings, data, and what the results do not say.

The report page and the model card use the same words for it.
"""

from dataclasses import dataclass
from pathlib import Path

from eczema_tf import __version__
from eczema_tf.config import Config, TrainConfig
from eczema_tf.data.audit.audit import AuditReport
from eczema_tf.data.audit.overlap import Seen
from eczema_tf.data.dataset import CaseCounts, DatasetFacts
from eczema_tf.data.distributions import Distribution
from eczema_tf.evaluation.records import Metrics
from eczema_tf.files import Record
from eczema_tf.reporting.document import Table
from eczema_tf.schema import (
    ECZEMA,
    MODALITIES,
    NEVER_SEEN_PHOTOS,
    NEVER_SEEN_SKIN,
    NOTICE,
    TEMPLATE,
)

FEW_POSITIVES = 100
_BUILT_IN = "synthetic"
_WHO = {"skin tone": ("skin_tone", "monk_skin_tone"), "age group": ("age_group",), "sex": ("sex",)}
_COUNTS = {
    "rows": "rows",
    "cases": "cases",
    "groups": "groups",
    "image_only": "photo alone",
    "text_only": "text alone",
    "both": "both",
}


class RunData(DatasetFacts):
    """The contents of `data.json`: which cases a run saw, and how they were split.

    A run has `split_counts`, `splits` and `trained_on`; a cross-validation has `folds`.
    """

    split_counts: dict[str, CaseCounts] | None = None
    splits: dict[str, list[str]] | None = None  # example ids
    trained_on: list[str] | None = None  # modalities
    seen: Seen | None = None  # in training and validation; None in runs that predate it
    folds: dict[str, dict[str, int]] | None = None  # by repeat and example id
    # of training rows, by input; None in runs that predate it
    inputs: dict[str, Distribution] | None = None
    base: "RunData | None" = None  # of the run whose model this run keeps and adds to

    @property
    def lineage(self) -> list["RunData"]:
        """The data of this run and of the runs that it builds on, the newest first."""
        return [self, *(self.base.lineage if self.base else [])]

    @property
    def learned_from(self) -> frozenset[str]:
        """Modalities that the model has learned from, in this run or before."""
        return frozenset(name for data in self.lineage for name in data.trained_on or ())

    @property
    def built_in(self) -> bool:
        """Whether all data are built-in data."""
        return all(set(data.sources) == {_BUILT_IN} for data in self.lineage)

    @property
    def knows_no_skin(self) -> bool:
        """Whether all photos are built-in ones."""
        return all(
            set(data.sources) == {_BUILT_IN} or not data.counts.image_only + data.counts.both
            for data in self.lineage
        )

    @property
    def licences(self) -> list[str]:
        """The terms of all data that the model has learned from, each once."""
        terms = [data.provenance.get("licence", "for the author to fill") for data in self.lineage]
        return list(dict.fromkeys(terms))

    @property
    def notice(self) -> str:
        """What everyone must read before an answer."""
        if self.positive_class != ECZEMA:
            return (
                f"A stand-in task: this model tells {self.positive_class} from the rest; where its"
                f" answers say {ECZEMA}, read {self.positive_class}. {NOTICE}"
            )
        if self.built_in:
            return f"{NEVER_SEEN_SKIN} {NOTICE}"
        if self.base and self.knows_no_skin:
            return f"{NEVER_SEEN_PHOTOS} {NOTICE}"
        return NOTICE


class Environment(Record):
    """The contents of `environment.json`: the software and hardware a model was trained with."""

    python: str
    system: str
    machine: str
    devices: list[str]
    packages: dict[str, str]


@dataclass(frozen=True)
class RunFacts:
    """What a run folder says; `audit` is None where the run has none.

    `judged` describes the data that the run is evaluated on, where they are not its own.
    """

    config: Config
    data: RunData
    environment: Environment
    audit: AuditReport | None
    judged: DatasetFacts | None = None

    @property
    def nobody_is_judged(self) -> bool:
        """Whether the data that the run is evaluated on contain no real person."""
        return {*(self.judged or self.data).sources} == {_BUILT_IN}


def find_looked_at(facts: RunFacts) -> list[str]:
    """Finds whether a model learned from photos, texts or both; both if the run does not say."""
    return [name for name in MODALITIES if name in (facts.data.learned_from or MODALITIES)]


def tabulate_settings(facts: RunFacts) -> Table:
    """Lists the settings of a model. Local paths are cut to their last part."""
    model, train, packages = facts.config.model, facts.config.train, facts.environment.packages
    encoders, units = _name_encoders(facts), model.embedding_units
    software = [f"{name} {packages[name]}" for name in ("tensorflow", "keras")]
    fields = [f"{name} ({kind})" for name, kind in facts.config.data.clinical.items()]
    settings = {
        "image encoder": encoders["image"],
        "text encoder": encoders["text"],
        "clinical fields": ", ".join(fields) or "none",
        "fusion": model.fusion,
        "embedding": f"{units} units each" if units else "none: linear heads",
        "training": _describe_training(train),
        "fine-tuning": _describe_tuning(train),
        "seed": str(facts.config.seed),
        "software": ", ".join([f"eczema_tf {__version__}", *software]),
        "device": ", ".join(facts.environment.devices),
    }
    return Table("How the model was made", ("setting", "value"), list(settings.items()))


def _describe_training(train: TrainConfig) -> str:
    if train.base_run is not None:
        return f"added to the model of {Path(train.base_run).name}"
    kept = f"{train.keep} of {train.epochs} epochs"
    kept += " by validation AUROC" if train.keep == "best" else ""
    return f"{kept}, batches of {train.batch_size}, learning rate {train.learning_rate:g}"


def _describe_tuning(train: TrainConfig) -> str:
    if train.base_run is not None:
        return "as in that model"
    tuning = train.fine_tune
    if not tuning.epochs:
        return "none"
    first = {"photo": tuning.image_from, "text": tuning.text_from}
    parts = [f"{modality} from {layer}" for modality, layer in first.items() if layer]
    parts += [f"LoRA of rank {tuning.lora_rank}"] if tuning.lora_rank else []
    how = f"at most {tuning.epochs} epochs, learning rate {tuning.learning_rate:g}"
    return ", ".join([how, *parts])


def _name_encoders(facts: RunFacts) -> dict[str, str]:
    image, text = facts.config.model.image, facts.config.model.text
    encoders = {
        "image": _name_encoder(image.preset or image.saved_model, image.architecture),
        "text": _name_encoder(text.preset, text.architecture),
    }
    if facts.config.data.embeddings:
        encoders["image"] = "precomputed embeddings instead of photos"
    absent = {"image": "none: no photo in training", "text": "none: no text in training"}
    return {name: (encoders if name in find_looked_at(facts) else absent)[name] for name in absent}


def _name_encoder(pretrained: str | None, architecture: str) -> str:
    return f"{Path(pretrained).name}, pretrained" if pretrained else f"{architecture}, from scratch"


def tabulate_data(facts: RunFacts) -> Table:
    """Counts the rows for training, validation and test, or for cross-validation."""
    by_split = facts.data.split_counts or {"all": facts.data.counts}
    rows = [
        [
            split,
            *(str(getattr(counts, name)) for name in _COUNTS),
            "-" if counts.eczema_mean is None else f"{counts.eczema_mean:.1%}",
        ]
        for split, counts in by_split.items()
    ]
    columns = ("split", *_COUNTS.values(), "mean label")
    return Table("Rows (one per photo) and what they contain", columns, rows)


def describe_source(data: DatasetFacts) -> list[str]:
    """Says where data come from, under which terms, and what was left out."""
    said = [f"Sources of the rows: {data.name_sources()}."]
    known = [name for name in ("attribution", "licence", "label") if name in data.provenance]
    said += [f"{name.capitalize()}: {data.provenance[name].removesuffix('.')}." for name in known]
    if left := {reason: count for reason, count in data.not_kept.items() if count}:
        reasons = "; ".join(f"{count}: {reason}" for reason, count in left.items())
        said.append(
            f"{sum(left.values())} cases of the source were left out; nothing here is about them"
            f" ({reasons})."
        )
    if data.template_texts:
        said.append(f"{data.template_texts} texts are templates written by a program.")
    return said


def describe_data(facts: RunFacts) -> list[str]:
    """Says where the training data come from, under which terms, and what the audit found."""
    data = facts.data
    said = [*describe_source(data), f"Fingerprint of the manifest: {data.manifest_fingerprint}."]
    for base in data.lineage[1:]:
        terms = base.provenance.get("licence", "not stated").removesuffix(".")
        said.append(
            f"The run keeps a model that was trained on other data, of {base.counts.cases} cases"
            f" ({base.name_sources()}; licence: {terms}), and adds what these data say to it."
        )
    if data.rejected_rows:
        said.append(f"{data.rejected_rows} bad rows were left out.")
    return said + (_describe_audit(facts.audit) if facts.audit else [])


def _describe_audit(audit: AuditReport) -> list[str]:
    clusters = {kind: what.clusters for kind, what in audit.duplicates.items() if what.clusters}
    found = [f"{kind.replace('_', ' ')}: {count}" for kind, count in clusters.items()]
    said = [
        f"Clusters of duplicates that the audit found: {', '.join(found) or 'none'}; groups joined"
        f" because of them: {audit.groups.merged}."
    ]
    if (own := audit.named_diagnoses["own"]).texts:
        positive, negative = own.share_of_positive or 0.0, own.share_of_negative or 0.0
        said.append(
            f"{own.texts} texts name a skin diagnosis ({positive:.1%} of the texts of positive"
            f" cases, {negative:.1%} of negative ones): the model may read the answer off them."
        )
    return said


def list_caveats(facts: RunFacts, metrics: Metrics) -> list[str]:
    """Says what the results do not say."""
    split, name = facts.config.split, metrics.positive_class
    fusion, unknown = metrics.heads["fusion"], ", ".join(list_uncompared(metrics))
    others = fusion.cases - fusion.positives
    rarer = min(fusion.positives, others)
    kind = name if rarer == fusion.positives else f"not {name}"
    judged = facts.judged or facts.data
    caveats = {
        f"A stand-in task, {name} or not: it shows what this way of training makes of such"
        " photos and texts, but nothing about the condition that the program is made for.": (
            name != ECZEMA
        ),
        "Built-in data are rendered photos and written complaints. These results say nothing"
        " about patients.": _BUILT_IN in judged.sources,
        "Texts are templates made from answers to a questionnaire, not the patients' own words.": (
            judged.template_texts or TEMPLATE in judged.sources
        ),
        "These are results of a cross-validation: they judge a way of training by"
        f" {(split.folds or 0) * split.repeats} models, none of which is the model.": split.folds,
        "Thresholds were chosen on validation cases; then the model was trained again on"
        " training and validation cases together.": facts.config.train.refit,
        "No photo was looked at: nothing is known about photos.": not metrics.heads["image"].cases,
        "No text was looked at: nothing is known about texts.": not metrics.heads["text"].cases,
        f"Only {rarer} of the cases are {kind}, so the intervals are wide.": (
            0 < rarer < FEW_POSITIVES
        ),
        f"No case is {kind}: how well the two are told apart is not known.": not rarer,
        f"No comparison by {unknown} was possible: do not assume that the model is equally good"
        " for everybody.": unknown,
        "The results cover only data like these: another camera, country, skin tone mix or way"
        " of asking can make them worse.": True,
    }
    return [caveat for caveat, holds in caveats.items() if holds]


def list_uncompared(metrics: Metrics) -> list[str]:
    """Lists the factors by which no two groups of people could be compared."""
    factors = metrics.subgroups.factors if metrics.subgroups else {}
    compared = {column for column, factor in factors.items() if factor.gaps}
    return [name for name, columns in _WHO.items() if not compared.intersection(columns)]
