"""Tests converting a Hugging Face BERT to a KerasHub preset: hidden states, casing and errors."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras_hub
import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file, save_file

from eczema_tf.config import TextConfig
from eczema_tf.data.text.tokenizer import SPECIAL_TOKENS, load_tokenizer
from eczema_tf.errors import EczemaError, PresetError
from eczema_tf.model.encoders import build_encoder, load_preset_weights, specify_text_encoder

NEEDS = "needs torch and transformers: pip install -r requirements-convert.txt"
torch = pytest.importorskip("torch", reason=NEEDS)
transformers = pytest.importorskip("transformers", reason=NEEDS)

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "convert_bert.py"
WORDS = ["The", "the", "Itch", "itch", "##y", "skin", "is", "dry", "caf", "##e", "##é", ".", ","]
VOCABULARY = [
    SPECIAL_TOKENS[0],
    *[f"[unused{n}]" for n in range(1, 5)],
    *SPECIAL_TOKENS[1:],
    *WORDS,
]  # in the order of bert-base
UNCASED = [piece for piece in VOCABULARY if piece not in ("The", "Itch")]
CONFIG = {
    "architectures": ["BertForMaskedLM"],
    "vocab_size": len(VOCABULARY),
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 20,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "model_type": "bert",
    "attention_probs_dropout_prob": 0.1,
}
IDS = np.array([[7, 9, 11, 12, 13, 8], [7, 15, 14, 8, 0, 0]])
MASK = np.array([[1] * 6, [1, 1, 1, 1, 0, 0]])


@pytest.fixture(scope="module")
def script() -> Any:
    """`scripts/convert_bert.py`, as a module."""
    spec = importlib.util.spec_from_file_location("convert_bert", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def convert(script: Any) -> Callable[..., dict[str, Any]]:
    return lambda source, out, cased=None: script.convert(str(source), out, cased)


@pytest.fixture
def assert_refused(convert: Callable[..., dict[str, Any]]) -> Callable[..., str]:
    def check(source: Path | str, out: Path, *parts: str) -> str:
        """Checks that converting fails with all parts in the error and leaves nothing behind."""
        with pytest.raises(PresetError) as caught:
            convert(source, out)
        message = str(caught.value)
        for part in parts:
            assert part in message
        assert not out.exists()
        assert not list(out.parent.glob(".writing-*"))
        return message

    return check


def draw_tensors(folder: Path) -> dict[str, np.ndarray]:
    """Draws BERT's tensors under today's names, large enough for a swap of two to show."""
    rng = np.random.default_rng(0)
    bert = transformers.BertModel(transformers.BertConfig.from_pretrained(folder))
    return {
        name: rng.normal(float("LayerNorm.weight" in name), 0.3, weight.shape).astype("float32")
        for name, weight in bert.named_parameters()
    }


def rename_to_old_format(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns a checkpoint in the format of 2019, like Bio_ClinicalBERT.

    Names have a prefix, norms have gamma and beta, and there are a masked-word head and a buffer.
    """
    rename = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    old = {}
    for name, tensor in tensors.items():
        for new_end, old_end in rename.items():
            name = name.replace(new_end, old_end)
        old[f"bert.{name}"] = tensor
    width = CONFIG["hidden_size"]
    return old | {
        "bert.embeddings.position_ids": np.arange(CONFIG["max_position_embeddings"])[None],
        "cls.predictions.bias": np.zeros(len(VOCABULARY), "float32"),
        "cls.predictions.transform.dense.weight": np.ones((width, width), "float32"),
        "cls.predictions.transform.LayerNorm.gamma": np.ones(width, "float32"),
        "cls.seq_relationship.weight": np.ones((2, width), "float32"),
    }


def write_source(
    folder: Path, *, vocabulary: list[str] = VOCABULARY, **changes: Any
) -> dict[str, np.ndarray]:
    """Writes a source folder without weights; returns the tensors to put there."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(
        json.dumps({**CONFIG, "vocab_size": len(vocabulary), **changes})
    )
    (folder / "vocab.txt").write_text(
        "".join(f"{piece}\n" for piece in vocabulary), encoding="utf-8"
    )
    return draw_tensors(folder)


def write_pytorch(folder: Path, tensors: dict[str, Any], **options: Any) -> None:
    torch.save(
        {name: torch.tensor(tensor) for name, tensor in tensors.items()},
        folder / "pytorch_model.bin",
        **options,
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A complete source folder with safetensors."""
    folder = tmp_path / "source"
    save_file(write_source(folder), folder / "model.safetensors")
    return folder


def run_bert(tensors: dict[str, np.ndarray], ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """BERT (Devlin 2019, arXiv 1810.04805) in NumPy, with KerasHub's tanh GELU."""

    def dense(x: np.ndarray, name: str) -> np.ndarray:
        return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return x * tensors[f"{name}.LayerNorm.weight"] + tensors[f"{name}.LayerNorm.bias"]

    def split(x: np.ndarray) -> np.ndarray:
        # (batch, tokens, width) to (batch, heads, tokens, width / heads)
        return x.reshape(*x.shape[:2], CONFIG["num_attention_heads"], -1).swapaxes(1, 2)

    embedded = (
        tensors["embeddings.word_embeddings.weight"][ids]
        + tensors["embeddings.token_type_embeddings.weight"][0]
    )
    x = norm(
        embedded + tensors["embeddings.position_embeddings.weight"][: ids.shape[1]], "embeddings"
    )
    for layer in (f"encoder.layer.{index}" for index in range(CONFIG["num_hidden_layers"])):
        query, key, value = (
            split(dense(x, f"{layer}.attention.self.{name}")) for name in ("query", "key", "value")
        )
        weights = (
            query @ key.swapaxes(2, 3) / np.sqrt(query.shape[-1])
            + np.where(mask, 0, -1e9)[:, None, None]
        )
        weights = np.exp(weights - weights.max(-1, keepdims=True))
        mixed = (weights / weights.sum(-1, keepdims=True) @ value).swapaxes(1, 2).reshape(x.shape)
        x = norm(x + dense(mixed, f"{layer}.attention.output.dense"), f"{layer}.attention.output")
        inner = dense(x, f"{layer}.intermediate.dense")
        inner = 0.5 * inner * (1 + np.tanh(np.sqrt(2 / np.pi) * (inner + 0.044715 * inner**3)))
        x = norm(x + dense(inner, f"{layer}.output.dense"), f"{layer}.output")
    return x


def compute_hidden_states(
    preset: Path | str, ids: np.ndarray = IDS, mask: np.ndarray = MASK
) -> np.ndarray:
    backbone = keras_hub.models.BertBackbone.from_preset(str(preset), dtype="float32")
    return backbone({"token_ids": ids, "padding_mask": mask, "segment_ids": np.zeros_like(ids)})[
        "sequence_output"
    ].numpy()


def tokenize(preset: Path | str, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    ids, mask = tf.function(load_tokenizer(str(preset), 32))(tf.constant(texts))
    return ids.numpy(), mask.numpy()


def tokens_of(preset: Path | str, text: str) -> list[str]:
    vocabulary = load_tokenizer(str(preset), 32).vocabulary
    return [vocabulary[index] for index in tokenize(preset, [text])[0][0]]


@pytest.mark.parametrize("zipped", [True, False], ids=["new format", "format of 2019"])
def test_checkpoint_of_2019_keeps_its_hidden_states_and_capitals(
    convert: Callable[..., dict[str, Any]], tmp_path: Path, zipped: bool
):
    """Like emilyalsentzer/Bio_ClinicalBERT: a .bin file, cased, without tokenizer_config.json."""
    tensors = write_source(tmp_path / "source")
    write_pytorch(
        tmp_path / "source", rename_to_old_format(tensors), _use_new_zipfile_serialization=zipped
    )
    record = convert(tmp_path / "source", tmp_path / "preset")
    np.testing.assert_allclose(
        compute_hidden_states(tmp_path / "preset")[MASK == 1],
        run_bert(tensors, IDS, MASK)[MASK == 1],
        atol=2e-5,
    )
    for text, first in (("The Itchy skin", ["The", "Itch"]), ("the itchy skin", ["the", "itch"])):
        assert tokens_of(tmp_path / "preset", text) == ["[CLS]", *first, "##y", "skin", "[SEP]"]
    assert len(record["dropped_tensors"]) == 4
    assert record["cased"]
    assert record["casing_evidence"] == (
        "no do_lower_case in tokenizer_config.json, and 2 of 22 word pieces have capital letters"
    )
    assert record["pooler"] == "from the weights"
    assert json.loads((tmp_path / "preset" / "conversion.json").read_text()) == record
    assert not list((tmp_path / "preset").glob("tmp*"))


def test_preset_agrees_with_transformers(convert: Callable[..., dict[str, Any]], tmp_path: Path):
    write_pytorch(tmp_path, rename_to_old_format(write_source(tmp_path)))
    old_config = {
        key: value for key, value in CONFIG.items() if key not in ("model_type", "architectures")
    }
    (tmp_path / "config.json").write_text(json.dumps(old_config))
    differences = convert(tmp_path, tmp_path / "preset")["differences"]
    assert differences["gelu_pytorch_tanh"] < 1e-5  # only rounding
    assert 1e-5 < differences["gelu"] < 5e-3  # what the approximation of GELU costs


def test_wrong_weights_are_caught_by_comparing_with_transformers(
    assert_refused: Callable[..., str],
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    def swap(self: Any, folder: str) -> None:
        tensors = {name: tensor.numpy() for name, tensor in self.state_dict().items()}
        query, value = (
            f"encoder.layer.1.attention.self.{name}.weight" for name in ("query", "value")
        )
        save_file(
            {**tensors, query: tensors[value], value: tensors[query]},
            Path(folder, "model.safetensors"),
        )
        self.config.save_pretrained(folder)

    monkeypatch.setattr(transformers.BertModel, "save_pretrained", swap)
    assert_refused(
        source, tmp_path / "preset", "hidden states differ from transformers' by", "allowed 0.001"
    )


def test_wrong_tokenizer_is_caught_by_comparing_with_transformers(
    assert_refused: Callable[..., str],
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(
        keras_hub.models.BertTokenizer,
        "from_preset",
        lambda folder, **options: keras_hub.models.BertTokenizer(
            VOCABULARY[:5] + VOCABULARY[5:][::-1]
        ),
    )
    assert_refused(source, tmp_path / "preset", "token ids differ from transformers'")


def test_script_without_torch_says_what_to_install(tmp_path: Path):
    hidden = "import sys, runpy; sys.modules['torch'] = None; runpy.run_path(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", hidden, str(SCRIPT)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, f"error: {NEEDS}\n")


def test_code_in_a_pytorch_file_is_refused_and_not_run(
    assert_refused: Callable[..., str], tmp_path: Path
):
    trace = tmp_path / "it-ran"

    class Payload:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(trace),)

    write_source(tmp_path)
    torch.save({"bert.pooler.dense.bias": Payload()}, tmp_path / "pytorch_model.bin")
    message = assert_refused(tmp_path, tmp_path / "preset", "refused, and nothing in it was run")
    # the error leaves out torch's advice to switch the protection off
    assert "weights_only" not in message
    assert not trace.exists()


def test_pytorch_file_of_anything_but_named_tensors_is_refused(
    assert_refused: Callable[..., str], tmp_path: Path
):
    write_source(tmp_path)
    torch.save([torch.zeros(2)], tmp_path / "pytorch_model.bin")
    assert_refused(tmp_path, tmp_path / "preset", f"{tmp_path}: cannot be read")


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_truncated_file_is_a_clear_error(
    assert_refused: Callable[..., str], tmp_path: Path, name: str
):
    tensors = write_source(tmp_path)
    if name == "model.safetensors":
        save_file(tensors, tmp_path / name)
    else:
        write_pytorch(tmp_path, tensors)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-3000])
    message = assert_refused(tmp_path, tmp_path / "preset", f"{tmp_path}: cannot be read")
    assert "\n" not in message


def test_all_wrong_tensors_are_listed_in_one_error(
    assert_refused: Callable[..., str], tmp_path: Path
):
    tensors = write_source(tmp_path)
    del tensors["encoder.layer.1.output.dense.bias"]
    tensors["pooler.dense.bias"] = tensors["pooler.dense.bias"][:3]
    tensors["encoder.layer.2.output.dense.bias"] = np.zeros(16, "float32")
    tensors["embeddings.token_type_embeddings.weight"][0, 0] = np.nan
    save_file(tensors, tmp_path / "model.safetensors")
    message = assert_refused(tmp_path, tmp_path / "preset")
    assert message.split("\n")[1:] == [
        "  encoder.layer.1.output.dense.bias: missing",
        "  encoder.layer.2.output.dense.bias: unexpected",
        "  pooler.dense.bias: shape must be (16,), received (3,)",
        "  embeddings.token_type_embeddings.weight: contains NaN or infinity",
    ]


def test_missing_pooler_becomes_zeros_and_is_recorded(
    convert: Callable[..., dict[str, Any]], source: Path, tmp_path: Path
):
    tensors = {
        name: tensor
        for name, tensor in load_file(source / "model.safetensors").items()
        if not name.startswith("pooler")
    }
    save_file(tensors, source / "model.safetensors")
    record = convert(source, tmp_path / "preset")
    assert record["pooler"] == "not in the weights: zeros"
    np.testing.assert_allclose(
        compute_hidden_states(tmp_path / "preset")[MASK == 1],
        run_bert(tensors, IDS, MASK)[MASK == 1],
        atol=2e-5,
    )
    backbone = keras_hub.models.BertBackbone.from_preset(str(tmp_path / "preset"))
    assert not backbone.get_layer("pooled_dense").kernel.numpy().any()


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"model_type": "roberta"}, ["model_type: allowed bert, received 'roberta'"]),
        (
            {"hidden_act": "relu", "layer_norm_eps": 1e-5},
            ["(2 faults)", "hidden_act: allowed gelu,", "received 'relu'", "1e-05"],
        ),
        (
            {"position_embedding_type": "relative_key"},
            ["position_embedding_type: allowed absolute, received 'relative_key'"],
        ),
        (
            {"num_attention_heads": 5},
            ["(16) is not a multiple of the number of attention heads (5"],
        ),
        ({"vocab_size": 200}, ["embeddings.word_embeddings.weight: shape must be (200, 16)"]),
    ],
)
def test_model_that_kerashub_cannot_compute_is_refused(
    assert_refused: Callable[..., str],
    source: Path,
    tmp_path: Path,
    changes: dict[str, Any],
    parts: list[str],
):
    (source / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    assert_refused(source, tmp_path / "preset", *parts)


@pytest.mark.parametrize("pieces", [21, 200])
def test_vocabulary_of_the_wrong_size_is_refused(
    assert_refused: Callable[..., str], tmp_path: Path, pieces: int
):
    tensors = write_source(tmp_path, vocabulary=[*VOCABULARY, *map(str, range(150))])
    save_file(tensors, tmp_path / "model.safetensors")
    lines = [*VOCABULARY, *map(str, range(178))][:pieces]
    (tmp_path / "vocab.txt").write_text("\n".join(lines), encoding="utf-8")
    assert_refused(tmp_path, tmp_path / "preset", f"has {pieces} word pieces", "vocab_size 172")


@pytest.mark.parametrize(
    ("file", "content", "parts"),
    [
        ("vocab.txt", None, ["vocab.txt"]),
        ("vocab.txt", b"\xff\xfe", ["UnicodeDecodeError"]),
        ("vocab.txt", b"the\n", ["lacks [PAD], [UNK], [CLS], [SEP], [MASK]"]),
        ("config.json", None, ["config.json is missing"]),
        ("config.json", b"{", ["config.json", "not a valid JSON file"]),
        ("config.json", b"{}", ["config.json is missing or has no vocab_size"]),
        ("tokenizer_config.json", b"{", ["JSONDecodeError"]),
        ("model.safetensors", None, ["model.safetensors, or pytorch_model.bin"]),
    ],
)
def test_missing_or_damaged_file_is_a_clear_error(
    assert_refused: Callable[..., str],
    source: Path,
    tmp_path: Path,
    file: str,
    content: bytes | None,
    parts: list[str],
):
    (source / file).unlink(missing_ok=True)
    if content is not None:
        (source / file).write_bytes(content)
    assert_refused(source, tmp_path / "preset", str(source), *parts)


def test_output_folder_that_is_not_empty_is_left_alone(
    convert: Callable[..., dict[str, Any]], source: Path, tmp_path: Path
):
    (tmp_path / "preset").mkdir()
    (tmp_path / "preset" / "mine").write_text("precious")
    with pytest.raises(EczemaError, match="exists and is not empty"):
        convert(source, tmp_path / "preset")
    assert (tmp_path / "preset" / "mine").read_text() == "precious"


@pytest.mark.parametrize(
    ("settings", "vocabulary", "override", "cased", "evidence"),
    [
        ({}, VOCABULARY, None, True, "2 of 22 word pieces have capital letters"),
        ({}, UNCASED, None, False, "0 of 20 word pieces have capital letters"),
        # a capital letter that has no lower case
        ({}, [*UNCASED, "ℝ"], None, False, "0 of 21 word pieces have capital letters"),
        ({"do_lower_case": False}, VOCABULARY, None, True, "do_lower_case is False"),
        ({"do_lower_case": True}, UNCASED, None, False, "do_lower_case is True"),
        (
            {"do_lower_case": True},
            VOCABULARY,
            None,
            False,
            "True in tokenizer_config.json, where 2",
        ),
        ({"do_lower_case": True}, VOCABULARY, True, True, "--cased"),
        ({}, VOCABULARY, False, False, "--uncased, where 2 of 22"),
    ],
)
def test_casing_is_decided_and_the_evidence_is_given(
    script: Any, settings: dict, vocabulary: list[str], override: bool, cased: bool, evidence: str
):
    decided, why = script.decide_casing(settings, vocabulary, override)
    assert decided == cased
    assert evidence in why


def test_uncased_model_folds_case_and_accents_like_bert(
    convert: Callable[..., dict[str, Any]], tmp_path: Path
):
    save_file(write_source(tmp_path, vocabulary=UNCASED), tmp_path / "model.safetensors")
    convert(tmp_path, tmp_path / "preset")
    assert tokens_of(tmp_path / "preset", "THE Café") == ["[CLS]", "the", "caf", "##e", "[SEP]"]


def test_requested_casing_overrides_the_vocabulary(
    convert: Callable[..., dict[str, Any]], source: Path, tmp_path: Path
):
    convert(source, tmp_path / "preset", cased=False)
    assert tokens_of(tmp_path / "preset", "The Itch") == ["[CLS]", "the", "itch", "[SEP]"]


def test_preset_and_hugging_face_folder_give_the_same_states(
    convert: Callable[..., dict[str, Any]], source: Path, tmp_path: Path
):
    convert(source, tmp_path / "preset")
    (source / "tokenizer_config.json").write_text(
        '{"do_lower_case": false, "tokenizer_class": "BertTokenizer"}'
    )
    states = []
    for preset in map(str, (tmp_path / "preset", source)):
        spec = specify_text_encoder(TextConfig(preset=preset, max_tokens=16), len(VOCABULARY))
        encoder = build_encoder(spec)
        load_preset_weights(encoder, preset)
        ids, mask = tokenize(preset, ["The skin is dry.", "the"])
        states.append(
            encoder({"token_ids": ids, "padding_mask": mask, "segment_ids": np.zeros_like(ids)})[
                "sequence_output"
            ]
        )
        assert (spec.kind, spec.pretrained) == ("BertBackbone", True)
        assert tokens_of(preset, "The the") == ["[CLS]", "The", "the", "[SEP]"]
    np.testing.assert_array_equal(*states)


def test_error_for_a_name_without_internet_says_what_to_give(
    assert_refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(name: str) -> None:
        raise OSError("We couldn't connect to 'https://huggingface.co'.\nCheck your connection.")

    monkeypatch.setattr(transformers.BertConfig, "get_config_dict", refuse)
    message = assert_refused(
        "emilyalsentzer/Bio_ClinicalBERT",
        tmp_path / "preset",
        "emilyalsentzer/Bio_ClinicalBERT: cannot be read (OSError: We couldn't connect",
        "config.json, vocab.txt, model.safetensors or pytorch_model.bin",
    )
    assert "\n" not in message


def test_path_that_is_not_a_folder_is_a_clear_error(
    assert_refused: Callable[..., str], tmp_path: Path
):
    assert_refused(tmp_path / "nowhere", tmp_path / "preset", "nowhere: cannot be read")


def run_script(*arguments: str | Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "scripts/convert_bert.py", *map(str, arguments)],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_script_runs_from_a_clone_and_prints_a_report(source: Path, tmp_path: Path):
    done = run_script(source, "--out", tmp_path / "preset")
    assert done.returncode == 0, done.stderr
    assert "casing: cased (no do_lower_case in tokenizer_config.json, and 2 of 22" in done.stdout
    assert "largest difference from transformers with gelu_pytorch_tanh: " in done.stdout
    assert f"--set model.text.preset={tmp_path / 'preset'}" in done.stdout


def test_script_prints_errors_on_one_line_and_exits_with_1(source: Path, tmp_path: Path):
    (source / "vocab.txt").unlink()
    done = run_script(source, "--out", tmp_path / "preset")
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if "error: " in line] == [
        done.stderr.splitlines()[-1]
    ]
    assert done.stderr.splitlines()[-1].startswith(f"error: {source}: cannot be read")


def flatten_as_hugging_face(backbone: keras_hub.models.BertBackbone) -> dict[str, np.ndarray]:
    """Inverts KerasHub's converter: weights under the names of transformers' `BertModel`."""
    tensors = {}

    def add(name: str, layer: Any, inputs: int) -> None:
        tensors[f"{name}.weight"] = layer.kernel.numpy().reshape(inputs, -1).T.copy()
        tensors[f"{name}.bias"] = layer.bias.numpy().reshape(-1)

    def add_norm(name: str, layer: Any) -> None:
        tensors[f"{name}.LayerNorm.weight"], tensors[f"{name}.LayerNorm.bias"] = (
            layer.gamma.numpy(),
            layer.beta.numpy(),
        )

    width, inner = backbone.hidden_dim, backbone.intermediate_dim
    tensors["embeddings.word_embeddings.weight"] = backbone.token_embedding.embeddings.numpy()
    tensors["embeddings.position_embeddings.weight"] = (
        backbone.position_embedding.position_embeddings.numpy()
    )
    tensors["embeddings.token_type_embeddings.weight"] = (
        backbone.segment_embedding.embeddings.numpy()
    )
    add_norm("embeddings", backbone.embeddings_layer_norm)
    add("pooler.dense", backbone.pooled_dense, width)
    for index, block in enumerate(backbone.transformer_layers):
        layer, attention = f"encoder.layer.{index}", block._self_attention_layer
        for name in ("query", "key", "value"):
            add(f"{layer}.attention.self.{name}", getattr(attention, f"{name}_dense"), width)
        add(f"{layer}.attention.output.dense", attention.output_dense, width)
        add_norm(f"{layer}.attention.output", block._self_attention_layer_norm)
        add(f"{layer}.intermediate.dense", block._feedforward_intermediate_dense, width)
        add(f"{layer}.output.dense", block._feedforward_output_dense, inner)
        add_norm(f"{layer}.output", block._feedforward_layer_norm)
    return tensors


def test_minilm_is_unchanged_by_a_round_trip_to_hugging_face(
    convert: Callable[..., dict[str, Any]], shared: Path, tmp_path: Path
):
    preset = str(shared / "presets" / "all_minilm_l6_v2_en")
    backbone = keras_hub.models.BertBackbone.from_preset(preset, dtype="float32")
    vocabulary = keras_hub.models.BertTokenizer.from_preset(preset).get_vocabulary()
    shape = {
        "hidden_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
        "max_position_embeddings": 512,
    }
    write_source(tmp_path / "source", vocabulary=vocabulary, **shape)
    tensors = flatten_as_hugging_face(backbone)
    write_pytorch(tmp_path / "source", {f"bert.{name}": tensor for name, tensor in tensors.items()})
    record = convert(tmp_path / "source", tmp_path / "preset")
    assert not record["cased"]
    ids, mask = tokenize(preset, ["My skin is very itchy at night.", "no rash"])
    np.testing.assert_array_equal(
        tokenize(tmp_path / "preset", ["My skin is very ITCHY at night.", "no rash"])[0], ids
    )
    before = compute_hidden_states(preset, ids, mask)
    np.testing.assert_array_equal(compute_hidden_states(tmp_path / "preset", ids, mask), before)
    assert record["differences"]["gelu_pytorch_tanh"] < 2e-5  # measured: 2e-6
    assert record["differences"]["gelu"] < 1e-2  # measured: 4e-3
