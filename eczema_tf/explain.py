"""`python -m eczema_tf.explain`: why a trained run answers as it does, for one photo, one text, or both."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from eczema_tf.cli import build_parser, read_photo_argument, run_command

EXAMPLES = """examples:
  python -m eczema_tf.explain --run-dir runs/quickstart --image arm.jpg --text "dry itchy patches in both elbow creases" --out why
  python -m eczema_tf.explain --run-dir runs/quickstart --text "it burns but does not itch" --target consistency:other --out why
  python -m eczema_tf.explain --run-dir runs/quickstart --image arm.jpg --against --out why    # what speaks against eczema

writes heatmap.png (the photo under its heatmap), explanation.json and explanation.html (one page with everything). They hold the photo
and the text: keep them as you keep those."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see `--help`."""
    parser = build_parser("explain", examples=EXAMPLES)
    parser.add_argument("--run-dir", type=Path, required=True, help="folder of a finished `train`")
    parser.add_argument(
        "--image",
        type=Path,
        help="a photo; it is turned upright and stripped of metadata before anything sees it",
    )
    parser.add_argument("--text", default="", help="a description of the symptoms")
    parser.add_argument("--out", type=Path, required=True, help="a new folder for the results")
    parser.add_argument(
        "--target",
        default="eczema",
        help="what to explain: a head, or head:label (default: %(default)s)",
    )
    parser.add_argument(
        "--image-method",
        default="layercam",
        help="layercam, gradcam, gradcam++ or scorecam (slow) (default: %(default)s)",
    )
    parser.add_argument(
        "--text-method",
        default="integrated_gradients",
        choices=["integrated_gradients", "gradient_x_input"],
        help="how words are scored (default: %(default)s)",
    )
    parser.add_argument(
        "--against", action="store_true", help="let the heatmap show what speaks against the target"
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
