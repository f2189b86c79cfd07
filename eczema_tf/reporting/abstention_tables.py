"""Tables of what is decided, of what is not, and of what the answers are worth."""

from eczema_tf.evaluation.abstention import Abstention
from eczema_tf.reporting.document import Block, Table
from eczema_tf.reporting.formats import format_estimate

_NAMES = {"all": "all cases", "image": "photo alone", "text": "text alone", "fusion": "both"}


def tabulate_abstention(abstention: Abstention) -> list[Block]:
    """Lists decisions by kind of case, and accuracy against the share of cases answered."""
    rows = [
        [
            _NAMES.get(name, name),
            *map(str, (group.cases, group.unknown, group.undecided)),
            *(
                format_estimate(share, 2)
                for share in (group.answered, group.accuracy, group.coverage)
            ),
        ]
        for name, group in abstention.groups.items()
    ]
    title = (
        "Where the model says that it cannot tell: at what is unlike its training or not read"
        " (unknown), and where it is not sure (undecided). Covered: the share whose label is in the"
        " prediction set, 0.90 by design in each kind of case"
    )
    columns = ("cases of", "cases", "unknown", "undecided", "answered", "accuracy", "covered")
    risks = [
        [f"{point.answered:.0%}", format_estimate(point.accuracy)]
        for point in abstention.risk_coverage
    ]
    surest = "Accuracy at the thresholds, if only the surest cases are answered"
    return [Table(title, columns, rows), Table(surest, ("share answered", "accuracy"), risks)]
