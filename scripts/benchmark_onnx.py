r"""Compares the speed of the served network with ONNX Runtime; both take turns in one run.

Both run the same network with the same weights, in float32, on the same number of threads.

    pip install -r requirements-onnx.txt
    python scripts/benchmark_onnx.py --image-preset efficientnet_lite0_imagenet \
        --text-preset all_minilm_l6_v2_en

Only the network is timed, from pixels and token ids to probabilities, since ONNX Runtime cannot
decode photos. TensorFlow runs the graph that is served (frozen and rewritten, `serving/freeze.py`),
ONNX Runtime runs what tf2onnx makes of the plain model. Their answers are compared first. Times are
medians [fastest, slowest] by the clock; on a busy machine, only the ratios mean something.
"""

import argparse
import os
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from benchmark_serving import BATCHES, build_assistant_of_presets
from turns import Contender, describe, ratio, take_turns

MAX_RATIO = 1.2  # at the largest batch
MAX_DIFFERENCE = 1e-4  # of a probability
TOKENS = 40  # for a text of 29 words, the median of the built-in complaints
OURS, ONNX = "as served", "ONNX Runtime"
FILES = {OURS: "network", ONNX: "network.onnx"}


def main() -> None:
    """Exports, compares, times and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image-preset", required=True, help="KerasHub name or folder")
    parser.add_argument("--text-preset", required=True, help="KerasHub name or folder")
    parser.add_argument("--layers", type=int, help="layers of the text preset (default: all)")
    parser.add_argument("--rounds", type=int, default=30, help="turns of each (default: 30)")
    parser.add_argument("--threads", type=int, default=2, help="threads per operation (default: 2)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        export = Contender(
            "export", build_networks, [{**vars(arguments), "tokens": 64}, Path(folder)], {}
        )
        export.time("done")
        export.close()
        run(arguments, Path(folder))


def run(arguments: argparse.Namespace, folder: Path) -> None:
    """Times both and prints the results, with the bar that they should meet."""
    builds = {OURS: build_tensorflow, ONNX: build_onnx}
    contenders = {
        name: Contender(name, build, [folder / FILES[name], arguments.threads], {})
        for name, build in builds.items()
    }
    print(f"{arguments.threads} threads; load average {os.getloadavg()[0]:.1f}")
    for batch in BATCHES:
        seconds = take_turns(
            {name: (contender, str(batch)) for name, contender in contenders.items()},
            arguments.rounds,
        )
        bar = f" (bar: at most {MAX_RATIO})" if batch == max(BATCHES) else ""
        print(
            f"batch {batch}\n{describe(seconds, batch)}\n  as served takes"
            f" {ratio(seconds, OURS, ONNX):.2f} times as long{bar}"
        )
    for contender in contenders.values():
        contender.close()


def draw_inputs(batch: int) -> dict[str, np.ndarray]:
    """Draws what the network takes besides pixels: ids of ordinary pieces, and masks."""
    rng = np.random.default_rng(0)
    return {
        "token_ids": rng.integers(2000, 20000, (batch, TOKENS)).astype("int32"),
        "padding_mask": np.ones((batch, TOKENS), "int32"),
        "image_present": np.ones(batch, "float32"),
        "text_present": np.ones(batch, "float32"),
    }


def draw_photos(batch: int, size_px: int) -> np.ndarray:
    """Draws random pixels: float32 (batch, size_px, size_px, 3)."""
    return np.random.default_rng(1).integers(0, 256, (batch, size_px, size_px, 3)).astype("float32")


def build_networks(settings: dict, folder: Path) -> Mapping[str, Callable[[], object]]:
    """Writes both networks and checks that they answer alike; runs in its own process.

    Raises:
        SystemExit: If a probability differs by more than `MAX_DIFFERENCE`.
    """
    import tensorflow as tf
    import tf2onnx

    from eczema_tf.model.losses import compute_probabilities
    from eczema_tf.serving.graph.freeze import save_frozen

    model, image, _ = build_assistant_of_presets(settings)
    specs = [
        tf.TensorSpec([None, image.size_px, image.size_px, 3], tf.float32, "image"),
        *(tf.TensorSpec([None], tf.float32, name) for name in ("image_present", "text_present")),
        *(tf.TensorSpec([None, None], tf.int32, name) for name in ("token_ids", "padding_mask")),
    ]

    @tf.function(input_signature=specs, autograph=False)
    def network(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        return compute_probabilities(
            model(
                {spec.name: tensor for spec, tensor in zip(specs, tensors, strict=True)},
                training=False,
            )
        )

    save_frozen({"serving_default": network}, folder / FILES[OURS])
    tf2onnx.convert.from_function(network, specs, opset=17, output_path=str(folder / FILES[ONNX]))
    networks = (
        load_tensorflow(folder / FILES[OURS]),
        build_onnx(folder / FILES[ONNX], settings["threads"]),
    )
    answers = [network[str(max(BATCHES))]() for network in networks]
    difference = float(np.abs(answers[0] - answers[1]).max())
    if not difference <= MAX_DIFFERENCE:
        raise SystemExit(
            f"the two networks differ by {difference:.1e}; allowed: {MAX_DIFFERENCE:.0e}"
        )
    print(f"largest difference of a probability between the two: {difference:.1e}")
    return {"done": lambda: None}


def build_tensorflow(folder: Path, threads: int) -> Mapping[str, Callable[[], object]]:
    """Loads the frozen network; runs in the contender's process."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    return load_tensorflow(folder)


def load_tensorflow(folder: Path) -> Mapping[str, Callable[[], object]]:
    """Returns the frozen network's work by batch size."""
    import tensorflow as tf

    model = tf.saved_model.load(str(folder))
    network = model.signatures["serving_default"]
    size_px = network.structured_input_signature[1]["image"].shape[1]

    def answer(inputs: dict[str, tf.Tensor]) -> np.ndarray:
        return network(**inputs)["eczema"].numpy()

    work = {}
    for batch in BATCHES:
        inputs = {name: tf.constant(value) for name, value in draw_inputs(batch).items()}
        work[str(batch)] = partial(
            answer, inputs | {"image": tf.constant(draw_photos(batch, size_px))}
        )
    return {**work, "model": lambda: model}  # keeps the model alive as long as its work


def build_onnx(file: Path, threads: int) -> Mapping[str, Callable[[], object]]:
    """Loads the ONNX network; runs in the contender's process."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = {value.name: value for value in session.get_inputs()}
    size_px = names["image"].shape[1]

    def answer(inputs: dict[str, np.ndarray]) -> np.ndarray:
        return session.run(["eczema"], inputs)[0]

    work = {}
    for batch in BATCHES:
        inputs = {name: value for name, value in draw_inputs(batch).items() if name in names}
        work[str(batch)] = partial(answer, inputs | {"image": draw_photos(batch, size_px)})
    return work


if __name__ == "__main__":
    main()
