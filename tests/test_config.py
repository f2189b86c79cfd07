"""Tests for the configuration: strict values, all faults reported at once, and safe YAML."""

import contextlib
from pathlib import Path

import pytest
import yaml

from eczema_tf.config import Config, change_config, dump_config, load_config
from eczema_tf.errors import ConfigError

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


def test_quickstart_file_spells_out_the_defaults():
    path = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
    assert load_config(path) == Config()
    assert yaml.safe_load(path.read_text()) == Config().model_dump()  # every key is written out


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_config_is_valid_and_states_purpose_command_and_result(path: Path):
    load_config(path)
    head = path.read_text().split("\n\n")[0]
    assert "# Purpose:" in head
    assert "# Command:" in head
    assert "# Expect:" in head


def test_dump_and_load_give_the_same_config(tmp_path: Path):
    config = load_config(overrides=["train.learning_rate=1e-4", "model.image.preset=some/folder"])
    assert load_config(write(tmp_path, dump_config(config))) == config


def test_scientific_notation_is_a_number_and_no_is_a_word(tmp_path: Path):
    assert load_config(write(tmp_path, "train: {learning_rate: 1e-4}")).train.learning_rate == 1e-4
    assert load_config(write(tmp_path, "model: {image: {preset: no}}")).model.image.preset == "no"


def test_unknown_key_suggests_the_nearest_key():
    with pytest.raises(
        ConfigError, match=r"train\.learning_rte: unknown key; did you mean 'learning_rate'\?"
    ):
        load_config(overrides=["train.learning_rte=1"])


def test_all_faults_are_reported_at_once(tmp_path: Path):
    path = write(tmp_path, "seed: -1\ntrain: {epochs: 0, batch_size: many}\nmodell: {}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    message = str(caught.value)
    assert "4 faults" in message
    for part in (
        "seed",
        "train.epochs",
        "train.batch_size",
        "modell: unknown key; did you mean 'model'?",
    ):
        assert part in message


@pytest.mark.parametrize(
    "setting",
    [
        "train.epochs=1.5",
        "train.epochs='5'",
        "seed=true",
        "data.skip_bad_rows=1",
        "train.learning_rate=.nan",
    ],
)
def test_values_are_not_converted_silently(setting: str):
    with pytest.raises(ConfigError):
        load_config(overrides=[setting])


@pytest.mark.parametrize(
    "setting",
    ["train.epochs", "=3", "train..epochs=3", "seed.more=3", "train.epochs=[1", "data.manifest="],
)
def test_malformed_settings_are_errors(setting: str):
    with pytest.raises(ConfigError):
        load_config(overrides=["seed=1", setting])


@pytest.mark.parametrize(
    ("value", "path"),
    [("a #b/m.csv", "a #b/m.csv"), ("#b/m.csv", "#b/m.csv"), ("'a #b'", "a #b"), ("null", None)],
)
def test_hash_sign_does_not_start_a_comment_in_a_setting(value: str, path: str | None):
    assert load_config(overrides=[f" data.manifest = {value}"]).data.manifest == path


def test_label_threshold_must_be_below_one():
    """At a threshold of one, all cases would be negative."""
    with pytest.raises(ConfigError, match=r"data\.label_threshold"):
        load_config(overrides=["data.label_threshold=1.0"])
    assert load_config(overrides=["data.label_threshold=0.0"]).data.label_threshold == 0


def test_split_shares_must_sum_to_one():
    with pytest.raises(ConfigError, match="train \\+ val \\+ test must be 1"):
        load_config(overrides=["split.train=0.9"])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["split.repeats=3"], "repeats: 3 needs a cross-validation: set split.folds"),
        (
            ["split.folds=3", "split.val=0", "split.train=0.85"],
            "val: must be above 0 with split.folds",
        ),
    ],
)
def test_impossible_cross_validation_settings_are_refused(settings: list[str], said: str):
    with pytest.raises(ConfigError, match=said):
        load_config(overrides=settings)


def test_change_config_behaves_like_an_override():
    """An architecture replaces the default preset, but conflicts with one that was asked for."""
    setting = load_config(overrides=["model.image.architecture=vit"])
    assert change_config(Config(), {"model.image.architecture": "vit"}) == setting
    assert setting.model.image.preset is None
    named = load_config(overrides=["model.image.preset=efficientnet_lite0_imagenet"])
    with pytest.raises(ConfigError, match="each name the encoder"):
        change_config(named, {"model.image.architecture": "vit"})


def test_saved_model_input_needs_a_saved_model():
    with pytest.raises(ConfigError, match="saved_model_input: bytes needs a saved_model"):
        load_config(overrides=["model.image.saved_model_input=bytes"])


def test_section_with_only_comments_keeps_its_defaults(tmp_path: Path):
    path = tmp_path / "some.yaml"
    path.write_text("train:\n#  epochs: 3\nseed: 1\n")
    assert load_config(path).train == Config().train
    assert load_config(path, ["train.epochs=5"]).train.epochs == 5


@pytest.mark.parametrize(
    "content", [b"- a list", b"a: [", b"\xff\xfe", b"!!python/object/apply:os.system [echo]"]
)
def test_unreadable_files_are_clear_errors(tmp_path: Path, content: bytes):
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        load_config(path)


def test_missing_file_is_a_clear_error(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"no such configuration file; .*quickstart, .*smoke"):
        load_config(tmp_path / "absent.yaml")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_bundled_config_is_found_by_its_name(path: Path):
    assert load_config(path.stem) == load_config(path)


def test_config_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Config().seed = 3


BOMB = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefghijk", "bcdefghijkl", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "line 2: aliases are not allowed"),
        ("[" * 50_000, "nested too deeply"),
        ("seed: " + "9" * 5_000, "digits"),
        ("train: {epochs: 1}\ntrain: {epochs: 2}\n", "line 2: 'train' is given twice"),
        ("train: {epochs: 1, epochs: 2}\n", "'epochs' is given twice"),
        ("? [a, b]\n: 1\n", "line 1: found unhashable key"),
        ("seed: !!bool x\n", "line 1: tags are not allowed"),
        ("seed: !!int ''\n", "line 1: tags are not allowed"),
        ("seed: 1:30:00\n", "valid integer, received '1:30:00'"),
        ("seed: 010\n", "valid integer, received '010'"),
        ("? " + "x" * 100_000 + "\n: 1", "unknown key"),
        ("seed: " + "x" * 100_000, "valid integer"),
        ("seed: 'a", "not readable as YAML"),
    ],
)
def test_hostile_or_contradictory_yaml_is_a_short_error(tmp_path, text, said):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert said in str(error.value)
    assert len(str(error.value)) < 200 + 400
    for override in (f"data.manifest={text}", text):
        with contextlib.suppress(ConfigError) if "=" in override else pytest.raises(ConfigError):
            load_config(None, [override])


def test_overrides_may_be_a_mapping_a_list_or_a_single_string():
    given = {"seed": 3, "train.epochs": 5, "data.manifest": "a #1/manifest.csv"}
    same = ["seed=3", "train.epochs=5", "data.manifest=a #1/manifest.csv"]
    assert load_config("smoke", given) == load_config("smoke", same)
    assert load_config("smoke", "seed=3") == load_config("smoke", ["seed=3"])
    with pytest.raises(ConfigError, match=r"seed\.x: seed is a value, not a section"):
        load_config(None, {"seed": 3, "seed.x": 4})


def test_textures_are_refused_with_cross_attention():
    """It keeps the photo's features as a map, which leaves no room for textures."""
    for fusion in ("concat", "gated", "late"):
        load_config(None, {"model.image.textures": True, "model.fusion": fusion})
    with pytest.raises(ConfigError, match=r"textures: true needs another fusion than cross_"):
        load_config(None, {"model.image.textures": True, "model.fusion": "cross_attention"})
