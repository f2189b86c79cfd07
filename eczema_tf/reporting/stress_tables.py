"""What is left of the answers when photos and texts are missing, exchanged or corrupted."""

from collections.abc import Iterable, Mapping

from eczema_tf.evaluation.metadata import MetadataBaseline
from eczema_tf.evaluation.records import Metrics
from eczema_tf.evaluation.stress import StressTest
from eczema_tf.reporting.document import Block, Bullets, Section, Table
from eczema_tf.reporting.formats import format_difference, format_estimate, format_number

MISSING = "Missing and mismatched photos and texts"
CORRUPTED = "Robustness: corrupted photos and texts"
# by name: what is done, and what its strength is
MISSING_TESTS = {
    "photo_missing": ("photo missing", "share of cases"),
    "text_missing": ("text missing", "share of cases"),
    "photo_of_another": ("another case's photo", "share of cases"),
    "text_of_another": ("another case's text", "share of cases"),
    "border_only": ("border only", "share of the side"),
    "diagnoses_masked": ("diagnoses masked", "share of them"),
}
CORRUPTIONS = {
    "blur": ("blur", "sigma in px of 256"),
    "brightness": ("brightness", "more or less, share of white"),
    "colour_cast": ("colour cast", "gain of red or blue"),
    "noise": ("noise", "SD as a share of white"),
    "jpeg": ("JPEG", "quality"),
    "rotation": ("rotation", "degrees"),
    "occlusion": ("occlusion", "share of the side"),
    "resolution": ("resolution", "share of the side"),
    "typing_errors": ("typing errors", "share of words"),
    "dropped_words": ("dropped words", "share of words"),
    "word_order": ("word order", "swaps a word"),
    "synonyms": ("synonyms", "share of those known"),
    "capitals": ("capitals", "share of words"),
    "small_talk": ("small talk", "sentences"),
    "other_language": ("other language", "share of the text"),
}
_MEANINGS = {
    "photo_missing": "The fewer photos, the nearer fusion comes to the text alone; it must not fall"
    " below.",
    "text_missing": "The fewer texts, the nearer fusion comes to the photo alone; it must not fall"
    " below.",
    "photo_of_another": "With wrong photos fusion must fall: if it does not, it does not look at"
    " them.",
    "text_of_another": "With wrong texts fusion must fall: if it does not, it does not read them.",
    "border_only": "From a frame around its own mean colour the photo alone should tell little (0.5"
    " is nothing); if it tells as much as before, the model looks at the surroundings.",
    "diagnoses_masked": 'With "this" for every diagnosis that a text names, fusion should be as'
    " good; if it falls, the answer was read off the names.",
}
_COLUMNS = ("AUROC", "change", "over the other alone", "alone", "ECE", "cannot tell")
_EXPLAINED = (
    "AUROC, expected calibration error (ECE) and share of cases that it cannot tell: of fusion."
    " Change: of its AUROC, from the same cases as they are, paired. Over the other alone: its"
    " AUROC minus that of the head that sees only what was not touched; below 0, the answer would"
    " have been better without. Alone: AUROC of the head that sees only what was touched."
)


def build_stress(metrics: Metrics) -> list[Section]:
    """Builds the sections of stress tests and metadata, none where there is nothing."""
    missing, corrupted = (select_tests(metrics, names) for names in (MISSING_TESTS, CORRUPTIONS))
    blocks: list[Block] = []
    if missing:
        title = "Cases answered again without photo or text, or with another case's"
        blocks = [
            _EXPLAINED,
            _tabulate(title, missing, 1),
            Bullets([_MEANINGS[name] for name in missing]),
        ]
    if metrics.metadata:
        blocks.append(_describe_metadata(metrics.metadata))
    sections = [Section(MISSING, blocks)] if blocks else []
    if corrupted:
        table = _tabulate("At the strongest of five strengths", corrupted, -1)
        sections.append(Section(CORRUPTED, [_describe_cases(corrupted), _EXPLAINED, table]))
    return sections


def select_tests(metrics: Metrics, names: Iterable[str]) -> dict[str, StressTest]:
    """Selects stress tests by name, those that were made."""
    tests = metrics.stress_tests or {}
    return {name: tests[name] for name in names if name in tests}


def _tabulate(title: str, tests: Mapping[str, StressTest], first: int) -> Table:
    """Lists the points of tests from the first that is wanted on."""
    rows = []
    for name, test in tests.items():
        what, _ = (MISSING_TESTS | CORRUPTIONS)[name]
        for point in test.points[first:]:
            rows.append(
                [
                    f"{what}: {point.strength:g}" if len(test.points) > 2 else what,
                    format_number(point.auroc.value),
                    format_estimate(point.change, 2),
                    format_estimate(point.gain, 2),
                    format_number(point.alone.value),
                    format_number(point.ece.value),
                    format_number(point.cannot_tell.value),
                ]
            )
    return Table(title, ("what is done", *_COLUMNS), rows)


def _describe_cases(tests: Mapping[str, StressTest]) -> str:
    """Says of how many cases the tests are, and how to read them."""
    counts = {test.changed: test.cases for test in tests.values()}
    things = {"image": "the photos", "text": "the texts"}
    of = " and ".join(f"{things[name]} of {count} cases" for name, count in counts.items())
    highest = {CORRUPTIONS[name][0]: test.points[-1].change.high for name, test in tests.items()}
    fallen = ", ".join(name for name, high in highest.items() if high is not None and high < 0)
    return (
        f"Corrupted are {of}, drawn at random, as clients send them, in five strengths. At the"
        f" strongest, AUROC surely falls with {fallen or 'none of them'}. Where it falls, the model"
        " should say more often that it cannot tell: if it does not, it answers about what it can"
        " no longer make out."
    )


def _describe_metadata(baseline: MetadataBaseline) -> str:
    columns = ", ".join(name.replace("_", " ") for name in baseline.columns)
    return (
        f"From {columns} alone (logistic regression, cross-validated on these {baseline.cases}"
        f" cases): AUROC {format_estimate(baseline.auroc)}; fusion is better by"
        f" {format_difference(baseline.fusion_gain)}. At 0.5 nothing can be guessed from them; near"
        " fusion, the model may have learned no more than they tell."
    )
