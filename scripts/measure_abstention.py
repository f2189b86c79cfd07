"""Measures how often an export says that it does not know an input, and that it cannot tell.

    pip install --no-deps --target samples scikit-image spacy
    PYTHONPATH=samples python scripts/measure_abstention.py --model saved_models/eczema [--skin DIR]

The photos without skin are the sample images of scikit-image (in its wheel) and scikit-learn, noise
and plain colours, and pages of text. The texts without symptoms are the first sentences of Python's
own modules, spaCy's example sentences in other languages, and nonsense. Nothing is imported from
the two packages, so their dependencies are not needed. `--skin` adds photos of skin of kinds that
training did not have. The script prints a table in Markdown, with Wilson's 95 % intervals in
brackets.
"""

import argparse
import ast
import importlib.util
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# runs from a checkout, installed or not
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from eczema_tf.data.photo.upright import upright_jpeg
from eczema_tf.evaluation.intervals import compute_wilson
from eczema_tf.schema import DECISIONS
from eczema_tf.serving.exported import ExportedModel
from eczema_tf.serving.graph.signature import SERVE

PAGE_PX, SMALLEST_PX = (600, 800), 64
PHOTOS, PAGES, TEXTS = 50, 30, 150


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="folder of an export")
    parser.add_argument("--skin", type=Path, help="folder with photos of other kinds of skin")
    arguments = parser.parse_args()
    model, rng = ExportedModel(arguments.model, [SERVE]), np.random.default_rng(0)
    docstrings = list(read_docstrings())
    photos = {
        "samples of scikit-image and scikit-learn": list(read_samples()),
        "noise and plain colours": [draw_noise(rng, kind % 4) for kind in range(PHOTOS)],
        "pages of text": [draw_page(rng, docstrings) for _ in range(PAGES)],
    }
    if arguments.skin:
        files = sorted(path for path in arguments.skin.iterdir() if path.is_file())
        photos["skin of other kinds"] = [path.read_bytes() for path in files]
    foreign = list(read_foreign())
    texts = {
        "sentences on Python's modules": draw(rng, docstrings),
        "sentences in other languages": draw(rng, foreign),
        "nonsense": [write_nonsense(rng, docstrings, kind % 3) for kind in range(TEXTS)],
    }
    print("| shown | not known | cannot tell | called eczema |\n|---|---|---|---|")
    for name, files in photos.items():
        upright = [upright_jpeg(file) for file in files]
        print_row(name, model, upright, [""] * len(files))
    for name, written in texts.items():
        print_row(name, model, [b""] * len(written), written)


def print_row(
    name: str, model: ExportedModel, photos: Sequence[bytes], texts: Sequence[str]
) -> None:
    """Asks about photos without texts, or texts without photos, and prints the answers."""
    answers = model.run(photos, texts)
    not_known = ~(answers["known_image"] | answers["known_text"])
    decisions = answers["decision"].astype(str)
    counts = [not_known.sum(), *((decisions == one).sum() for one in DECISIONS[1:])]
    print(f"| {name} | {' | '.join(format_share(int(one), len(texts)) for one in counts)} |")


def format_share(count: int, cases: int) -> str:
    """Formats `12 of 20, 0.60 [0.39, 0.78]`."""
    low, high = compute_wilson(count / cases, cases)
    return f"{count} of {cases}, {count / cases:.3f} [{low:.3f}, {high:.3f}]"


def find_package(name: str) -> Path:
    """Finds a package's folder without importing it."""
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        sys.exit(f"{name}: not installed; see --help")
    return Path(found.origin).parent


def read_samples() -> Iterator[bytes]:
    """Reads the sample images of both packages, except icons."""
    folders = (find_package("skimage") / "data", find_package("sklearn") / "datasets" / "images")
    for path in (path for folder in folders for path in sorted(folder.iterdir())):
        if path.suffix in (".png", ".jpg"):
            with Image.open(path) as image:
                if min(image.size) >= SMALLEST_PX:
                    yield path.read_bytes()


def draw_noise(rng: np.random.Generator, kind: int) -> bytes:
    """Draws white noise, grain on a colour, clouds, or a plain colour."""
    makers: list[Callable[[], np.ndarray]] = [
        lambda: rng.integers(0, 256, (256, 256, 3)),
        lambda: rng.normal(rng.uniform(60, 220, 3), rng.uniform(5, 60), (256, 256, 3)),
        lambda: rng.integers(0, 256, (8, 8, 3)),
        lambda: np.tile(rng.integers(0, 256, 3), (8, 8, 1)),
    ]
    image = Image.fromarray(np.clip(makers[kind](), 0, 255).astype("uint8"))
    return encode(image.resize((256, 256), Image.Resampling.BICUBIC))


def draw_page(rng: np.random.Generator, sentences: Sequence[str]) -> bytes:
    """Draws a page of dark print on light paper."""
    page = Image.new("RGB", PAGE_PX, tuple(map(int, rng.integers(225, 256, 3))))
    font = ImageFont.load_default(int(rng.choice([10, 12, 14, 18, 22])))
    text = "\n".join(rng.choice(sentences, 50))
    ImageDraw.Draw(page).multiline_text((30, 30), text, fill=(20, 20, 20), font=font)
    return encode(page)


def encode(image: Image.Image) -> bytes:
    """Makes a PNG file."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def read_docstrings() -> Iterator[str]:
    """Reads the first sentence of each of Python's own modules, if it has five words or more."""
    for path in sorted(Path(ast.__file__).parent.glob("*.py")):
        docstring = ast.get_docstring(ast.parse(path.read_bytes())) or ""
        sentence = " ".join(docstring.split("\n\n")[0].split())
        if len(sentence.split()) >= 5:
            yield sentence


def read_foreign() -> Iterator[str]:
    """Reads spaCy's example sentences in all languages except English."""
    for path in sorted((find_package("spacy") / "lang").glob("*/examples.py")):
        if path.parent.name != "en":
            listed = ast.parse(path.read_text(encoding="utf-8")).body[-1]
            yield from ast.literal_eval(listed.value)  # sentences = [...]


def write_nonsense(rng: np.random.Generator, sentences: Sequence[str], kind: int) -> str:
    """Writes letters without spaces, words of letters, or words of other sentences."""
    letters = list("abcdefghijklmnopqrstuvwxyz")
    if kind == 0:
        return "".join(rng.choice(letters, rng.integers(8, 60)))
    if kind == 1:
        sizes = rng.integers(2, 10, rng.integers(3, 20))
        return " ".join("".join(rng.choice(letters, size)) for size in sizes)
    return " ".join(rng.choice(" ".join(sentences).split(), rng.integers(5, 30)))


def draw(rng: np.random.Generator, sentences: Sequence[str]) -> list[str]:
    """Draws `TEXTS` sentences, or all of them if there are fewer."""
    return [sentences[place] for place in rng.permutation(len(sentences))[:TEXTS]]


if __name__ == "__main__":
    main()
