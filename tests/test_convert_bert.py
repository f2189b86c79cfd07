"""A Hugging Face BERT becomes a KerasHub preset: the same hidden states, cased text stays cased, every fault is named."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import save_file

from eczema_tf.config import TextConfig
from eczema_tf.data.text.tokenizer import SPECIAL_TOKENS, load_tokenizer
from eczema_tf.errors import EczemaError, PresetError
from eczema_tf.model.bert_checkpoint import compute_shapes, read_config, read_tensors
from eczema_tf.model.bert_vocabulary import decide_casing
from eczema_tf.model.convert_bert import RECORD, convert_bert
from eczema_tf.model.encoders import build_encoder, load_preset_weights, specify_text_encoder

ROOT = Path(__file__).parents[1]
NEEDS_TORCH = "needs torch: pip install -r requirements-convert.txt"
NEEDS_TRANSFORMERS = "needs transformers: pip install -r requirements-convert.txt"
WORDS = ["The", "the", "Itch", "itch", "##y", "skin", "is", "dry", "caf", "##e", "##é", ".", ","]
VOCABULARY = [
    SPECIAL_TOKENS[0],
    *[f"[unused{n}]" for n in range(1, 5)],
    *SPECIAL_TOKENS[1:],
    *WORDS,
]  # the order of bert-base
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


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that has neither torch nor transformers."""
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "transformers", None)


def draw_tensors(folder: Path) -> dict[str, np.ndarray]:
    """BERT's tensors by today's names, without a prefix; not too small, so that a swap of two shows."""
    rng = np.random.default_rng(0)
    shapes = compute_shapes(read_config(folder / "config.json"))
    return {
        name: rng.normal(float("LayerNorm.weight" in name), 0.3, shape).astype("float32")
        for name, shape in shapes.items()
    }


def rename_as_of_old(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The names of a checkpoint of 2019, like Bio_ClinicalBERT's: prefix, gamma and beta, the masked-word head, and a buffer."""
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
    """Writes a source without its weights; returns the tensors to put there."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(
        json.dumps({**CONFIG, "vocab_size": len(vocabulary), **changes})
    )
    (folder / "vocab.txt").write_text(
        "".join(f"{piece}\n" for piece in vocabulary), encoding="utf-8"
    )
    return draw_tensors(folder)


def write_pytorch(folder: Path, tensors: dict[str, Any], **options: Any) -> None:
    torch = pytest.importorskip("torch", reason=NEEDS_TORCH)
    torch.save(
        {name: torch.tensor(tensor) for name, tensor in tensors.items()},
        folder / "pytorch_model.bin",
        **options,
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A whole source with safetensors, which needs no torch."""
    folder = tmp_path / "source"
    save_file(write_source(folder), folder / "model.safetensors")
    return folder


def run_bert(tensors: dict[str, np.ndarray], ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """BERT (Devlin 2019, arXiv 1810.04805) in NumPy, with the tanh approximation of GELU that KerasHub uses."""

    def dense(x: np.ndarray, name: str) -> np.ndarray:
        return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return x * tensors[f"{name}.LayerNorm.weight"] + tensors[f"{name}.LayerNorm.bias"]

    def split(
        x: np.ndarray,
    ) -> np.ndarray:  # (batch, tokens, width) to (batch, heads, tokens, width / heads)
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


def assert_refused(
    source: Path | str, out: Path, *parts: str, error: type[EczemaError] = PresetError
) -> str:
    """The conversion fails with an error that has all the parts, and leaves nothing behind."""
    with pytest.raises(error) as caught:
        convert_bert(str(source), out)
    message = str(caught.value)
    for part in parts:
        assert part in message
    assert not out.exists()
    assert not list(out.parent.glob(".writing-*"))
    return message


@pytest.mark.parametrize("zipped", [True, False], ids=["new format", "format of 2019"])
def test_a_checkpoint_of_2019_keeps_its_hidden_states_and_its_capitals(
    tmp_path: Path, zipped: bool
):
    tensors = write_source(tmp_path / "source")
    write_pytorch(
        tmp_path / "source", rename_as_of_old(tensors), _use_new_zipfile_serialization=zipped
    )
    record = convert_bert(str(tmp_path / "source"), tmp_path / "preset")
    np.testing.assert_allclose(
        compute_hidden_states(tmp_path / "preset")[MASK == 1],
        run_bert(tensors, IDS, MASK)[MASK == 1],
        atol=2e-5,
    )
    assert tokens_of(tmp_path / "preset", "The Itchy skin") == [
        "[CLS]",
        "The",
        "Itch",
        "##y",
        "skin",
        "[SEP]",
    ]
    assert tokens_of(tmp_path / "preset", "the itchy skin") == [
        "[CLS]",
        "the",
        "itch",
        "##y",
        "skin",
        "[SEP]",
    ]
    assert record["weights"]["file"] == "pytorch_model.bin"
    assert len(record["dropped_tensors"]) == 5
    assert (
        record["casing"]["evidence"]
        == "vocab.txt: 2 of 22 word pieces have capital letters; no do_lower_case in"
        " tokenizer_config.json"
    )
    assert json.loads((tmp_path / "preset" / RECORD).read_text()) == record
    assert not list((tmp_path / "preset").glob(".*"))


def test_transformers_agrees_with_the_preset(tmp_path: Path):
    pytest.importorskip("torch", reason=NEEDS_TORCH)
    pytest.importorskip("transformers", reason=NEEDS_TRANSFORMERS)
    write_pytorch(tmp_path, rename_as_of_old(write_source(tmp_path)))
    old_config = {
        key: value for key, value in CONFIG.items() if key not in ("model_type", "architectures")
    }
    (tmp_path / "config.json").write_text(json.dumps(old_config))
    comparison = convert_bert(str(tmp_path), tmp_path / "preset")["comparison"]
    assert comparison["done"]
    assert comparison["same_gelu"] < 1e-5  # rounding
    assert 1e-5 < comparison["own_gelu"] < 5e-3  # what the approximation of GELU costs


def test_a_wrong_conversion_is_caught_by_transformers(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("torch", reason=NEEDS_TORCH)
    pytest.importorskip("transformers", reason=NEEDS_TRANSFORMERS)

    def swap(path: Path) -> dict[str, np.ndarray]:
        tensors = read_tensors(path)
        query, key = (
            "encoder.layer.1.attention.self.query.weight",
            "encoder.layer.1.attention.self.value.weight",
        )
        return {**tensors, query: tensors[key], key: tensors[query]}

    monkeypatch.setattr("eczema_tf.model.bert_checkpoint.read_tensors", swap)
    assert_refused(
        source, tmp_path / "preset", "hidden states differ from transformers' by", "allowed 0.001"
    )


@pytest.mark.usefixtures("without_torch")
def test_safetensors_need_no_torch(source: Path, tmp_path: Path):
    record = convert_bert(str(source), tmp_path / "preset")
    states = compute_hidden_states(tmp_path / "preset")
    np.testing.assert_allclose(
        states[MASK == 1],
        run_bert(read_tensors(source / "model.safetensors"), IDS, MASK)[MASK == 1],
        atol=2e-5,
    )
    assert record["comparison"] == {
        "done": False,
        "why": "needs torch and transformers: pip install -r requirements-convert.txt",
    }
    assert record["pooler"] == "from the weights"


@pytest.mark.usefixtures("without_torch")
def test_a_pytorch_file_without_torch_says_what_to_install(tmp_path: Path):
    write_source(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"any")
    assert_refused(
        tmp_path,
        tmp_path / "preset",
        "pytorch_model.bin: needs torch: pip install -r requirements-convert.txt",
    )


def test_an_old_torch_is_not_trusted_with_a_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(__version__="2.9.1+cpu"))
    write_source(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"any")
    assert_refused(
        tmp_path,
        tmp_path / "preset",
        "needs torch 2.10 or later to be read safely, found 2.9.1+cpu",
    )


def test_code_in_a_pytorch_file_is_refused_and_not_run(tmp_path: Path):
    torch = pytest.importorskip("torch", reason=NEEDS_TORCH)
    trace = tmp_path / "it-ran"

    class Payload:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(trace),)

    write_source(tmp_path)
    torch.save({"bert.pooler.dense.bias": Payload()}, tmp_path / "pytorch_model.bin")
    message = assert_refused(
        tmp_path, tmp_path / "preset", "refused, nothing in it was run (it asks to run posix.mkdir)"
    )
    assert (
        "weights_only" not in message
    )  # torch's advice to switch the protection off is not passed on
    assert not trace.exists()


def test_anything_but_named_tensors_in_a_pytorch_file_is_refused(tmp_path: Path):
    torch = pytest.importorskip("torch", reason=NEEDS_TORCH)
    write_source(tmp_path)
    torch.save([torch.zeros(2)], tmp_path / "pytorch_model.bin")
    assert_refused(tmp_path, tmp_path / "preset", "damaged, cut short, or more than named tensors")


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_file_cut_short_is_a_clear_error(tmp_path: Path, name: str):
    tensors = write_source(tmp_path)
    (
        save_file(tensors, tmp_path / name)
        if name == "model.safetensors"
        else write_pytorch(tmp_path, tensors)
    )
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-3000])
    message = assert_refused(tmp_path, tmp_path / "preset", f"{name}: ", "fetch it again")
    assert "\n" not in message


def test_every_wrong_tensor_is_listed_at_once(tmp_path: Path):
    tensors = write_source(tmp_path)
    del tensors["encoder.layer.1.output.dense.bias"]
    tensors["pooler.dense.bias"] = tensors["pooler.dense.bias"][:3]
    tensors["encoder.layer.2.output.dense.bias"] = np.zeros(16, "float32")
    tensors["embeddings.LayerNorm.gamma"] = np.ones(16, "float32")
    tensors["embeddings.token_type_embeddings.weight"][0, 0] = np.nan
    save_file(tensors, tmp_path / "model.safetensors")
    message = assert_refused(tmp_path, tmp_path / "preset")
    assert message.split("\n")[1:] == [
        "  embeddings.LayerNorm.weight: there twice, under an old and a new name",
        "  encoder.layer.1.output.dense.bias: missing",
        "  encoder.layer.2.output.dense.bias: unexpected",
        "  embeddings.token_type_embeddings.weight: holds NaN or infinity",
        "  pooler.dense.bias: shape must be (16,), received (3,)",
    ]


def test_a_missing_pooler_becomes_zeros_and_is_said(source: Path, tmp_path: Path):
    tensors = {
        name: tensor
        for name, tensor in read_tensors(source / "model.safetensors").items()
        if not name.startswith("pooler")
    }
    save_file(tensors, source / "model.safetensors")
    record = convert_bert(str(source), tmp_path / "preset")
    assert record["pooler"] == "not in the weights: zeros, so pooled_output is 0"
    np.testing.assert_allclose(
        compute_hidden_states(tmp_path / "preset")[MASK == 1],
        run_bert(tensors, IDS, MASK)[MASK == 1],
        atol=2e-5,
    )


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"model_type": "roberta"}, ["model_type: expected 'bert', received 'roberta'"]),
        ({"class_name": "BertBackbone"}, ["is a KerasHub preset already"]),
        (
            {"hidden_act": "relu", "layer_norm_eps": 1e-5},
            ["(2 faults)", "hidden_act: input should be 'gelu',", "received 'relu'", "1e-05"],
        ),
        (
            {"position_embedding_type": "relative_key"},
            ["position_embedding_type: input should be 'absolute', received 'relative_key'"],
        ),
        (
            {"num_attention_heads": 5},
            ["must be a multiple of num_attention_heads, received 16 and 5"],
        ),
        ({"vocab_size": 200}, ["has 22 word pieces", "vocab_size 200"]),
        ({"vocab_size": 21}, ["has 22 word pieces", "vocab_size 21"]),
    ],
)
def test_a_model_that_kerashub_does_not_compute_is_refused(
    source: Path, tmp_path: Path, changes: dict[str, Any], parts: list[str]
):
    (source / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    assert_refused(source, tmp_path / "preset", *parts)


@pytest.mark.parametrize(
    ("file", "content", "parts"),
    [
        ("vocab.txt", None, ["vocab.txt: cannot be read (No such file"]),
        ("vocab.txt", b"\xff\xfe", ["vocab.txt: cannot be read", "UTF-8"]),
        ("vocab.txt", b"the\n", ["vocab.txt: lacks [PAD], [UNK], [CLS], [SEP], [MASK]"]),
        ("config.json", None, ["config.json: cannot be read as JSON (No such file"]),
        ("config.json", b"{", ["config.json: cannot be read as JSON"]),
        ("config.json", b"[]", ["config.json: must be a JSON object, received list"]),
        ("config.json", b"{}", ["(6 faults)", "hidden_size: field required"]),
        ("tokenizer_config.json", b"{", ["tokenizer_config.json: cannot be read as JSON"]),
        (
            "model.safetensors",
            None,
            ["has no weights file; expected model.safetensors or pytorch_model.bin"],
        ),
    ],
)
def test_a_missing_or_damaged_file_is_a_clear_error(
    source: Path, tmp_path: Path, file: str, content: bytes | None, parts: list[str]
):
    (source / file).unlink(missing_ok=True)
    if content is not None:
        (source / file).write_bytes(content)
    assert_refused(source, tmp_path / "preset", *parts)


def test_an_occupied_output_is_left_alone(source: Path, tmp_path: Path):
    (tmp_path / "preset").mkdir()
    (tmp_path / "preset" / "mine").write_text("precious")
    with pytest.raises(EczemaError, match="exists and is not empty"):
        convert_bert(str(source), tmp_path / "preset")
    assert (tmp_path / "preset" / "mine").read_text() == "precious"


@pytest.mark.parametrize(
    ("settings", "vocabulary", "override", "cased", "strip_accents", "evidence", "warned"),
    [
        ({}, VOCABULARY, None, True, False, "2 of 22 word pieces have capital letters", False),
        ({}, UNCASED, None, False, True, "0 of 20 word pieces have capital letters", False),
        (
            {},
            [*UNCASED, "ℝ"],
            None,
            False,
            True,
            "0 of 21 word pieces have capital letters",
            False,
        ),  # upper case without a lower one
        ({"do_lower_case": False}, VOCABULARY, None, True, False, "do_lower_case is false", False),
        ({"do_lower_case": True}, UNCASED, None, False, True, "do_lower_case is true", False),
        (
            {"do_lower_case": True, "strip_accents": False},
            UNCASED,
            None,
            False,
            False,
            "do_lower_case is true",
            False,
        ),
        ({"do_lower_case": True}, VOCABULARY, None, False, True, "do_lower_case is true", True),
        ({"do_lower_case": True}, VOCABULARY, True, True, False, "--cased", False),
        ({}, VOCABULARY, False, False, True, "--uncased", True),
    ],
)
def test_casing_and_how_it_is_known(
    settings, vocabulary, override, cased, strip_accents, evidence, warned
):
    casing = decide_casing(settings, vocabulary, override)
    assert (casing.cased, casing.strip_accents, bool(casing.warning)) == (
        cased,
        strip_accents,
        warned,
    )
    assert evidence in casing.evidence


def test_an_uncased_model_folds_case_and_accents_as_bert_does(tmp_path: Path):
    save_file(write_source(tmp_path, vocabulary=UNCASED), tmp_path / "model.safetensors")
    convert_bert(str(tmp_path), tmp_path / "preset")
    assert tokens_of(tmp_path / "preset", "THE Café") == ["[CLS]", "the", "caf", "##e", "[SEP]"]


def test_the_project_reads_the_preset_and_a_plain_hugging_face_folder(source: Path, tmp_path: Path):
    convert_bert(str(source), tmp_path / "preset")
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


def test_a_name_downloads_only_what_is_read(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    files = [
        "README.md",
        "config.json",
        "flax_model.msgpack",
        "model.safetensors",
        "pytorch_model.bin",
        "vocab.txt",
    ]
    info = SimpleNamespace(
        sha="c0ffee", siblings=[SimpleNamespace(rfilename=file) for file in files]
    )
    asked = {}
    monkeypatch.setattr(huggingface_hub, "model_info", lambda name: info)
    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        lambda name, **options: asked.update(options, name=name) or str(source),
    )
    record = convert_bert("hf://someone/Bert-Base", tmp_path / "preset")
    read = ["config.json", "vocab.txt", "tokenizer_config.json", "model.safetensors"]
    assert asked == {"name": "someone/Bert-Base", "revision": "c0ffee", "allow_patterns": read}
    assert (record["source"], record["revision"]) == ("hf://someone/Bert-Base", "c0ffee")


def test_a_name_without_internet_says_what_to_fetch_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(name: str) -> None:
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub, "model_info", refuse)
    files = (
        "fetch config.json, vocab.txt, tokenizer_config.json (if there is one) and"
        " model.safetensors or pytorch_model.bin"
    )
    place = "from huggingface.co/emilyalsentzer/Bio_ClinicalBERT/tree/main"
    message = assert_refused(
        "emilyalsentzer/Bio_ClinicalBERT",
        tmp_path / "preset",
        "no such folder",
        "not known",
        files,
        place,
    )
    assert "\n" not in message


def test_a_path_that_is_no_folder_is_not_asked_of_the_internet(tmp_path: Path):
    assert_refused(
        tmp_path / "nowhere",
        tmp_path / "preset",
        "no such folder; give a folder, or a Hugging Face name",
    )


def test_the_script_runs_from_a_clone_and_reports(source: Path, tmp_path: Path):
    command = [
        sys.executable,
        "scripts/convert_bert.py",
        str(source),
        "--out",
        str(tmp_path / "preset"),
    ]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (
        "casing: cased (vocab.txt: 2 of 22 word pieces have capital letters; no do_lower_case"
        in done.stdout
    )
    assert "comparison with transformers: " in done.stdout
    assert f"--set model.text.preset={tmp_path / 'preset'}" in done.stdout


def run_script(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["convert_bert.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_status:
        runpy.run_path(str(ROOT / "scripts" / "convert_bert.py"), run_name="__main__")
    return exit_status.value.code


def test_the_scripts_errors_are_one_line_and_status_1(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    (source / "vocab.txt").unlink()
    assert run_script(monkeypatch, source, "--out", tmp_path / "preset") == 1
    lines = capsys.readouterr().err.strip().split("\n")
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {source / 'vocab.txt'}: cannot be read")


@pytest.mark.usefixtures("without_torch")
def test_casing_said_against_the_vocabulary_is_obeyed_with_a_warning(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    assert run_script(monkeypatch, source, "--out", tmp_path / "preset", "--uncased") == 0
    expected = (
        "warning: casing: --uncased, but vocab.txt: 2 of 22 word pieces have capital letters;"
        " --cased if that is right"
    )
    output = capsys.readouterr()
    assert expected in output.err
    assert (
        "comparison with transformers: not done: needs torch and transformers: pip install -r"
        " requirements-convert.txt" in output.out
    )
    assert tokens_of(tmp_path / "preset", "The Itch") == ["[CLS]", "the", "itch", "[SEP]"]


def flatten_as_hugging_face(backbone: keras_hub.models.BertBackbone) -> dict[str, np.ndarray]:
    """The inverse of KerasHub's converter: a BERT backbone's weights by the names and shapes of transformers' `BertModel`."""
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


def test_minilm_goes_to_hugging_face_and_back_unchanged(shared: Path, tmp_path: Path):
    pytest.importorskip("torch", reason=NEEDS_TORCH)
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
    record = convert_bert(str(tmp_path / "source"), tmp_path / "preset")
    assert not record["casing"]["cased"]
    ids, mask = tokenize(preset, ["My skin is very itchy at night.", "no rash"])
    np.testing.assert_array_equal(
        tokenize(tmp_path / "preset", ["My skin is very ITCHY at night.", "no rash"])[0], ids
    )
    before = compute_hidden_states(preset, ids, mask)
    np.testing.assert_array_equal(compute_hidden_states(tmp_path / "preset", ids, mask), before)
    if record["comparison"]["done"]:
        assert record["comparison"]["same_gelu"] < 2e-5  # measured: 2e-6
        assert record["comparison"]["own_gelu"] < 1e-2  # measured: 4e-3
