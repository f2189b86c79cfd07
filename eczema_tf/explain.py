"""`python -m eczema_tf.explain`: why a run answers as it does to photos, a text, or both."""

import argparse
import sys
from pathlib import Path

from eczema_tf.cli import (
    CLINICAL,
    IMAGE,
    RUN_DIR,
    TEXT,
    argument,
    check_photo_arguments,
    command,
    read_clinical_arguments,
    start_tensorflow,
)
from eczema_tf.schema import HEATMAP_METHODS

EXAMPLES = """examples:
  python -m eczema_tf.explain --run-dir runs/mine \\
      --image arm.jpg --text "dry itchy patches in both elbow creases" --out why
  python -m eczema_tf.explain --run-dir runs/mine \\
      --text "it burns but does not itch" --target consistency:other --out why
  python -m eczema_tf.explain --run-dir runs/mine --image arm.jpg --against --out why
  python -m eczema_tf.explain --run-dir runs/mine --image arm.jpg --image knee.jpg --out why

Several photos count as one case: their evidence is averaged, and each gets its own heatmap.

The command writes heatmap.png (the photo with its heatmap, if the model knows this kind of photo),
explanation.json and explanation.html (one page with everything). They contain the photo and the
text, so handle them with the same care."""


def _explain(arguments: argparse.Namespace) -> None:
    check_photo_arguments(arguments.image)
    start_tensorflow()
    from eczema_tf.workflows.explain import explain  # imported here, so that --help is fast

    answer = explain(
        arguments.run_dir,
        arguments.image,
        arguments.text,
        read_clinical_arguments(arguments.clinical),
        out=arguments.out,
        target=arguments.target,
        direction="against" if arguments.against else "for",
        image_method=arguments.image_method,
    )
    print(answer)


main = command(
    "explain",
    _explain,
    RUN_DIR,
    IMAGE,
    TEXT,
    CLINICAL,
    argument("--out", type=Path, required=True, metavar="DIR", help="a new folder for the results"),
    argument(
        "--target",
        default="eczema",
        help="what to explain: a head, or head:label, such as severity:severe (default:"
        " %(default)s)",
    ),
    argument(
        "--image-method",
        default="evidence",
        choices=HEATMAP_METHODS,
        metavar="METHOD",
        help=f"how the heatmap is made: {', '.join(HEATMAP_METHODS)} (the last is slow; default:"
        " %(default)s)",
    ),
    argument(
        "--against", action="store_true", help="show the evidence against the target in the heatmap"
    ),
    examples=EXAMPLES,
)

if __name__ == "__main__":
    sys.exit(main())
