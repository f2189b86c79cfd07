"""`python -m eczema_tf.explain`: why a run answers as it does, for a photo, a text, or both."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from eczema_tf.cli import build_parser, read_photo_argument, run_command

EXAMPLES = """examples:
  python -m eczema_tf.explain --run-dir runs/quickstart \\
      --image arm.jpg --text "dry itchy patches in both elbow creases" --out why
  python -m eczema_tf.explain --run-dir runs/quickstart \\
      --text "it burns but does not itch" --target consistency:other --out why
  python -m eczema_tf.explain --run-dir runs/quickstart --image arm.jpg --against --out why

It writes heatmap.png (the photo with its heatmap), explanation.json and explanation.html (one page
with everything). They contain the photo and the text, so handle them with the same care."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see `--help`."""
    parser = build_parser("explain", examples=EXAMPLES)
    parser.add_argument(
        "--run-dir", type=Path, required=True, metavar="DIR", help="folder of a finished run"
    )
    parser.add_argument(
        "--image",
        type=Path,
        metavar="FILE",
        help="a photo; it is turned upright and its metadata is removed before it is used",
    )
    parser.add_argument("--text", default="", help="a description of the symptoms")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="a new folder for the results"
    )
    parser.add_argument(
        "--target",
        default="eczema",
        help="what to explain: a head, or head:label (default: %(default)s)",
    )
    parser.add_argument(
        "--image-method",
        default="layercam",
        metavar="METHOD",
        help="layercam, gradcam, gradcam++, or scorecam, which is slow (default: %(default)s)",
    )
    parser.add_argument(
        "--text-method",
        default="integrated_gradients",
        choices=["integrated_gradients", "gradient_x_input"],
        help="how words are scored (default: %(default)s)",
    )
    parser.add_argument(
        "--against", action="store_true", help="show evidence against the target in the heatmap"
    )
    return run_command(parser, _explain, argv)


def _explain(arguments: argparse.Namespace) -> None:
    from eczema_tf.workflows.explain import explain  # here, so that --help is fast

    answer = explain(
        arguments.run_dir,
        read_photo_argument(arguments.image),
        arguments.text,
        out=arguments.out,
        target=arguments.target,
        direction="against" if arguments.against else "for",
        image_method=arguments.image_method,
        text_method=arguments.text_method,
    )
    print(answer)


if __name__ == "__main__":
    sys.exit(main())
