"""`python -m eczema_tf.evaluate`: metrics of a trained run on its test split or on other data."""

import argparse
import sys
from pathlib import Path

from eczema_tf.cli import argument, command, share, start_tensorflow, whole_number
from eczema_tf.errors import DataError
from eczema_tf.schema import SPLITS

EXPLAINED_CASES, CORRUPTED_CASES = 200, 100
EXAMPLES = """examples:
  python -m eczema_tf.evaluate --run-dir runs/mine
  python -m eczema_tf.evaluate --run-dir runs/mine \\
      --manifest other/manifest.csv --split all --out results
  python -m eczema_tf.evaluate --run-dir runs/mine --explanations --robustness
  python -m eczema_tf.evaluate --compare runs/one runs/other --out comparison

--explanations also measures whether heatmaps and word scores can be trusted. --robustness measures
how the answers hold up when photos are blurred, dark or covered, and when texts are mistyped,
shortened or in another language."""


def _evaluate(arguments: argparse.Namespace) -> None:
    parser: argparse.ArgumentParser = arguments.parser
    if arguments.embeddings is not None and arguments.manifest is None:
        raise DataError("--embeddings: needs --manifest, the manifest of the embedded photos")
    if arguments.compare is None and arguments.run_dir is None:
        parser.error("give --run-dir, or --compare with two or more runs")
    if arguments.compare is not None:
        others = vars(arguments).keys() - {"compare", "out", "debug", "parser"}
        given = [name for name in others if getattr(arguments, name) != parser.get_default(name)]
        if len(arguments.compare) < 2 or given:
            parser.error("--compare needs two or more runs, and allows no other option but --out")
    start_tensorflow()
    # imported here, so that --help does not wait for it
    from eczema_tf.workflows.evaluate import compare, evaluate

    if arguments.compare is not None:
        compare(arguments.compare, arguments.out)
        return
    evaluate(
        arguments.run_dir,
        arguments.manifest,
        embeddings=arguments.embeddings,
        split=arguments.split,
        out=arguments.out,
        sensitivities=arguments.sensitivity,
        explanations=arguments.explanations,
        robustness=arguments.robustness,
        with_photos=arguments.with_photos,
        allow_leaks=arguments.allow_leaks,
    )


main = command(
    "evaluate",
    _evaluate,
    argument("--run-dir", type=Path, metavar="DIR", help="folder of a finished run"),
    argument(
        "--compare",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="instead of evaluating, compare the first of several evaluated runs (or --out folders)"
        " with the others, paired on the same cases; with --out, also write the comparison as a"
        " page, Markdown and JSON",
    ),
    argument(
        "--manifest",
        type=Path,
        metavar="FILE",
        help="manifest to evaluate on (default: the one the run was trained on)",
    ),
    argument(
        "--embeddings",
        type=Path,
        metavar="FILE",
        help=".npz file with embeddings of the manifest's photos, for a run trained on embeddings",
    ),
    argument(
        "--split",
        choices=[*SPLITS, "all"],
        default="test",
        help="cases to evaluate on (default: test); use all for a manifest without splits",
    ),
    argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder for the results (default: the run's folder for its own test split, otherwise a"
        " folder in it)",
    ),
    argument(
        "--sensitivity",
        action="append",
        default=[],
        type=share,
        metavar="S",
        help="choose an operating point that reaches this sensitivity on validation; may be given"
        " several times (default: the run's evaluate.sensitivities)",
    ),
    argument(
        "--explanations",
        type=whole_number(1),
        nargs="?",
        const=EXPLAINED_CASES,
        metavar="N",
        help=f"also evaluate the explanations of N cases (default: {EXPLAINED_CASES}, about"
        " twenty minutes); writes explanations.json",
    ),
    argument(
        "--robustness",
        type=whole_number(1),
        nargs="?",
        const=CORRUPTED_CASES,
        metavar="N",
        help="also answer N cases again with corrupted photos and with corrupted texts (default:"
        f" {CORRUPTED_CASES}, about five minutes)",
    ),
    argument(
        "--with-photos",
        action="store_true",
        help="show the photos, heatmaps and texts of the surest right and wrong answers in"
        " report.html; such a report must not be shared",
    ),
    argument(
        "--allow-leaks",
        action="store_true",
        help="evaluate even on data that the run was trained on; every table then says so",
    ),
    lambda parser: parser.set_defaults(parser=parser),
    examples=EXAMPLES,
)

if __name__ == "__main__":
    sys.exit(main())
