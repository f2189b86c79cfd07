"""Measures how fast the served model answers: a plain Keras export against ours, taking turns.

    python scripts/benchmark_serving.py --image-preset efficientnet_lite0_imagenet --text-preset
    all_minilm_l6_v2_en

The heads are untrained, which does not change the times. The plain export, "as is", decodes whole
photos, pads texts to a fixed length and keeps variables; ours is what `python -m eczema_tf.export`
writes. TensorFlow itself turns on oneDNN's kernels only for processors with AVX-512; `--onednn`
says which export gets them. Times are medians [fastest, slowest] by the clock; on a busy machine,
only the ratios mean something.
"""

import argparse
import io
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from turns import Contender, describe, ratio, take_turns

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1])
)  # so that it runs from a clone, without being installed

SMALL_PX, LARGE_PX = (640, 480), (4000, 3000)  # 0.3 and 12 megapixels
TEXT = (  # 29 words, the median of the built-in complaints
    "I have an itchy rash in the creases of my elbows since three weeks. It gets worse at night,"
    " the skin is dry and cracked, and nobody in my family has it."
)
BATCHES = (1, 16)
AS_IS, OURS = "as is", "ours"
MAX_MS = {1: 16.0, 16: 11.0}  # per sample, on a quiet machine
MIN_GAIN, MAX_LARGE, MAX_EXPLAIN = 1.6, 3.0, 2.5


def main() -> None:
    """Exports, times and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image-preset", required=True, help="KerasHub name or folder")
    parser.add_argument("--text-preset", required=True, help="KerasHub name or folder")
    parser.add_argument("--layers", type=int, help="layers of the text preset (default: all)")
    parser.add_argument("--tokens", type=int, default=64, help="where texts are cut (default: 64)")
    parser.add_argument(
        "--padded-tokens",
        type=int,
        default=128,
        help="length to which the plain export pads texts (default: 128)",
    )
    parser.add_argument(
        "--onednn",
        choices=("both", "ours", "none"),
        default="both",
        help="which exports get oneDNN's kernels (default: both)",
    )
    parser.add_argument("--rounds", type=int, default=30, help="turns of each (default: 30)")
    parser.add_argument(
        "--threads", type=int, default=2, help="threads within and between operations (default: 2)"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_exports(arguments, Path(folder))
        run(arguments, Path(folder))


def write_exports(arguments: argparse.Namespace, folder: Path) -> None:
    """Writes both exports, in another process so that this one stays small."""
    export = Contender("export", build_exports, [vars(arguments), folder], {})
    export.time("done")
    export.close()


def run(arguments: argparse.Namespace, folder: Path) -> None:
    """Times both exports and prints the results, with the bars that they should meet."""
    has_onednn = {AS_IS: arguments.onednn == "both", OURS: arguments.onednn != "none"}
    contenders = {
        name: Contender(
            name,
            build_work,
            [folder / name, arguments.threads],
            {"TF_ENABLE_ONEDNN_OPTS": str(int(has_onednn[name]))},
        )
        for name in (AS_IS, OURS)
    }
    print(
        f"oneDNN: {', '.join(name for name in has_onednn if has_onednn[name]) or 'neither'}; load"
        f" average {os.getloadavg()[0]:.1f}"
    )
    for batch in BATCHES:
        turns = {
            name: (contender, f"serving_default {batch}") for name, contender in contenders.items()
        }
        turns["explain"] = (contenders[OURS], f"explain {batch}")
        seconds = take_turns(turns, arguments.rounds)
        print(
            f"batch {batch} (bar: ours at most {MAX_MS[batch]:.0f} ms on a quiet"
            f" machine)\n{describe(seconds, batch)}"
        )
        print(
            f"  ours is {ratio(seconds, AS_IS, OURS):.2f} times faster (bar: at least {MIN_GAIN})"
        )
        print(
            f"  explain costs {ratio(seconds, 'explain', OURS):.2f} times serving_default (bar: at"
            f" most {MAX_EXPLAIN})"
        )
    photos = {
        "0.3 megapixels": "serving_default 1",
        "12 megapixels": "large",
        "12 megapixels as is": "large",
        "no photo": "nothing",
    }
    turns = {
        name: (contenders[AS_IS if "as is" in name else OURS], work)
        for name, work in photos.items()
    }
    seconds = take_turns(turns, arguments.rounds)
    print(f"size of the photo, batch 1\n{describe(seconds)}")
    print(
        f"  12 megapixels cost {ratio(seconds, '12 megapixels', '0.3 megapixels'):.2f} times 0.3"
        f" (bar: at most {MAX_LARGE:.0f})"
    )
    for contender in contenders.values():
        contender.close()


def build_work(folder: Path, threads: int) -> Mapping[str, Callable[[], object]]:
    """Loads an export; runs in the contender's process."""
    import tensorflow as tf
    import tensorflow_text  # noqa: F401  (registers the tokenizer's ops)

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    model = tf.saved_model.load(str(folder))
    small, large = (
        [draw_photo(SMALL_PX, seed) for seed in range(max(BATCHES))],
        draw_photo(LARGE_PX, 0),
    )

    def answer(signature: str, photos: list[bytes]) -> np.ndarray:
        return model.signatures[signature](
            image=tf.constant(photos), text=tf.constant([TEXT] * len(photos))
        )["eczema"].numpy()

    work = {
        f"{name} {batch}": partial(answer, name, small[:batch])
        for name in model.signatures
        for batch in BATCHES
    }
    return {
        **work,
        "large": partial(answer, "serving_default", [large]),
        "nothing": partial(answer, "serving_default", [b""]),
    }


def draw_photo(size_px: tuple[int, int], seed: int) -> bytes:
    """Draws a JPEG of smooth colours with the grain of a phone's camera.

    It has 75 KB for 0.3 megapixels, and 2.6 MB for 12.
    """
    width, height = size_px
    rng = np.random.default_rng(seed)
    colours = _enlarge(rng.integers(60, 220, (12, 16, 3)), size_px)
    grain = _enlarge(rng.normal(128, 40, (height // 3, width // 3)).clip(0, 255), size_px) - 128
    buffer = io.BytesIO()
    Image.fromarray((colours + 0.3 * grain[..., None]).clip(0, 255).astype("uint8")).save(
        buffer, "JPEG", quality=90
    )
    return buffer.getvalue()


def _enlarge(pixels: np.ndarray, size_px: tuple[int, int]) -> np.ndarray:
    return np.asarray(
        Image.fromarray(pixels.astype("uint8")).resize(size_px, Image.Resampling.BICUBIC), "float32"
    )


def build_exports(settings: dict, folder: Path) -> Mapping[str, Callable[[], object]]:
    """Builds the model and writes both exports; runs in its own process."""
    import tensorflow as tf

    from eczema_tf.config import PreprocessConfig
    from eczema_tf.explanation.one_pass import explain_in_one_pass
    from eczema_tf.explanation.submodels import Submodels
    from eczema_tf.serving.graph.served_model import ServedModel, save_served

    model, image, tokenizer = build_assistant_of_presets(settings)
    served = ServedModel(
        model=model,
        image_encoder=image,
        tokenizer=tokenizer,
        preprocess=PreprocessConfig(),
        explainer=partial(explain_in_one_pass, Submodels(model)),
    )
    save_served(served, folder / OURS)
    plain = serve_as_is(model, image, tokenizer, settings["padded_tokens"])
    tf.saved_model.save(plain, str(folder / AS_IS), signatures={"serving_default": plain.serve})
    return {"done": lambda: None}


def build_assistant_of_presets(settings: dict):
    """Returns the model (only its heads are untrained), image encoder's spec and tokenizer."""
    import keras

    from eczema_tf.config import ImageConfig, ModelConfig, TextConfig
    from eczema_tf.data.text.tokenizer import load_tokenizer
    from eczema_tf.model.encoders import (
        load_preset_weights,
        specify_image_encoder,
        specify_text_encoder,
    )
    from eczema_tf.model.multimodal import Encoders, build_model
    from eczema_tf.model.weights.packaged import find_preset

    keras.utils.set_random_seed(0)
    text = TextConfig(
        preset=settings["text_preset"], layers=settings["layers"], max_tokens=settings["tokens"]
    )
    config = ModelConfig(image=ImageConfig(preset=settings["image_preset"]), text=text)
    tokenizer = load_tokenizer(find_preset(text.preset).location, text.max_tokens)
    image = specify_image_encoder(config.image)
    model = build_model(
        config, Encoders(image, specify_text_encoder(text, len(tokenizer.vocabulary)))
    )
    load_preset_weights(model.get_layer("image_encoder"), config.image.preset)
    load_preset_weights(model.get_layer("text_encoder"), text.preset)
    return model, image, tokenizer


def serve_as_is(model, image, tokenizer, tokens: int):
    """Makes the plain export: whole photos, one by one; texts of a fixed length; variables."""
    import tensorflow as tf

    from eczema_tf.model.losses import compute_probabilities
    from eczema_tf.serving.graph.served_model import SPECS

    def decode(data: tf.Tensor) -> tf.Tensor:
        return tf.image.resize(tf.io.decode_jpeg(data, channels=3), (image.size_px, image.size_px))

    module = tf.Module()
    module.parts = model, tokenizer.tokenizer

    @tf.function(input_signature=SPECS)
    def serve(photos: tf.Tensor, texts: tf.Tensor) -> dict[str, tf.Tensor]:
        token_ids, padding_mask = tokenizer(texts)
        missing = [[0, 0], [0, tokens - tf.shape(token_ids)[1]]]
        present = tf.ones([tf.size(photos)])
        inputs = {
            "image": tf.map_fn(
                decode,
                photos,
                fn_output_signature=tf.TensorSpec((image.size_px, image.size_px, 3), tf.float32),
            ),
            "token_ids": tf.pad(token_ids, missing),
            "padding_mask": tf.pad(padding_mask, missing),
            "image_present": present,
            "text_present": present,
        }
        return compute_probabilities(model(inputs, training=False))

    module.serve = serve
    return module


if __name__ == "__main__":
    main()
