"""Tests for the status of texts that are longer than the model reads, or mostly unknown."""

from collections.abc import Callable
from pathlib import Path

import keras_hub
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logit

from eczema_tf import train
from eczema_tf.config import MAX_TOKENS
from eczema_tf.data.synthetic.cases import draw_case
from eczema_tf.data.text.reading import TextReader, choose_unknown_limit, count_words
from eczema_tf.data.text.tokenizer import (
    SPECIAL_TOKENS,
    TextTokenizer,
    clean_text,
    load_tokenizer,
    read_tokenizer,
)
from eczema_tf.model.losses import compute_probabilities
from eczema_tf.model.weights.packaged import find_preset
from eczema_tf.schema import MOSTLY_UNKNOWN
from eczema_tf.workflows import run_folder
from eczema_tf.workflows.inference import build_client_inputs

pytestmark = pytest.mark.usefixtures("without_board")

SMOKE = Path(__file__).parents[1] / "configs" / "smoke.yaml"
MINILM = "all_minilm_l6_v2_en"
FOREIGN = [
    "Juckende trockene Stellen in beiden Ellenbeugen seit der Kindheit, nachts schlimmer",
    "Seit gestern brennt die Stelle am Hals, kein Fieber",
    "Çocukluğumdan beri dirseklerimin iç kısmında kaşıntılı kuru lekeler var",
    "Ellerim çok kaşınıyor ve derim soyuluyor",
    "肘窝处干燥瘙痒，从小就有，晚上加重",
    "我的手臂上有红疹三个星期了，不知道是什么",
    "У меня с детства сухие зудящие пятна на локтевых сгибах, ночью хуже",
    "Tengo manchas secas que pican en los pliegues de los codos desde la infancia",
    "बचपन से कोहनी में खुजली और सूखापन",
    "asdfghjkl qwertyuiop zxcvbnm",
    "sdjkfhskdjfh",
    "asdf asdf asdf asdf",
]
CLASSIC = (
    "Since childhood I have had dry, itchy patches in the bends of both elbows; they get worse in"
    " winter, and I have hay fever and asthma."
)
POLITE = (  # 76 tokens
    "Dear doctor, thank you very much for taking the time to read my message, I know how busy you"
    " must be and I really appreciate your help. I hope that you and your family are doing well,"
    " and please forgive me for writing such a long letter, but I did not know who else I could"
    " ask about this, and my sister told me that you are very kind. "
)
ENGLISH = ["eczema", "psoriasis?", "It itches.", "itchy rash", "a rash on my arm since May", "?"]


def build_describe(tokenizer: TextTokenizer) -> Callable[[list[str]], list[str]]:
    reader = TextReader(tokenizer)
    in_graph = tf.function(
        lambda texts: reader(texts, clean_text(texts)),
        input_signature=[tf.TensorSpec([None], tf.string)],
    )
    return lambda texts: [status.decode() for status in in_graph(texts).numpy()]


@pytest.fixture(scope="module")
def known() -> TextTokenizer:
    """Tokenizer of ten tokens, eight of them for the text; "itchy" takes two."""
    pieces = ["a", "e", "s", "t", "u", "##chy", "##a", "dry", "skin", "it", "my", "is", "and", ","]
    vocabulary = [*SPECIAL_TOKENS, *pieces]
    bert = keras_hub.models.BertTokenizer(vocabulary, lowercase=True, strip_accents=True)
    return TextTokenizer(bert, 10)


@pytest.fixture(scope="module")
def describe(known: TextTokenizer) -> Callable[[list[str]], list[str]]:
    return build_describe(known)


def test_status_says_how_far_a_text_is_read(describe):
    skin = "my skin is dry"
    assert describe(["", skin, f"{skin} {skin}"]) == ["ok"] * 3
    assert describe([f"{skin} {skin} and"]) == ["text: read to word 8 of 9"]
    assert describe([f"{skin}, dry, my skin"]) == ["text: read to word 6 of 7"]
    assert describe([f"{skin} and my skin itchy"]) == ["text: read to word 7 of 8"]  # it|chy
    assert describe([f"<b>{skin}</b> {skin}\n\n<br>"]) == ["ok"]


def test_combining_mark_without_a_letter_does_not_count_as_a_cut(describe):
    assert describe(["my skin is \u0301"]) == ["ok"]


def test_words_of_a_very_long_text_are_all_counted(describe):
    assert describe(["dry " * 10_000, "skin and " * 30_000]) == [
        "text: read to word 8 of 10000",
        "text: read to word 8 of 60000",
    ]


def test_status_reports_both_a_cut_and_unknown_words(describe):
    assert describe(["zzz " * 20]) == [f"text: read to word 8 of 20; {MOSTLY_UNKNOWN}"]


def test_count_words_counts_words_and_chinese_characters():
    texts = ["", "dry", "it's  dry, very!", "皮肤 dry 痒", b"\xff\xfe dry"]
    assert count_words(tf.constant(texts)).numpy().tolist() == [0, 1, 3, 4, 1]


@pytest.fixture(scope="module")
def count_tokens(known: TextTokenizer) -> Callable[[list[str]], np.ndarray]:
    """Counts the tokens of whole texts."""
    whole = TextTokenizer(known.tokenizer, 512)
    in_graph = tf.function(
        lambda texts: tf.reduce_sum(whole(clean_text(texts))[1], axis=1),
        input_signature=[tf.TensorSpec([None], tf.string)],
    )
    return lambda texts: in_graph(texts).numpy()


@settings(max_examples=60, deadline=None)
@given(text=st.text("aestu ,é肘🔥\u0301 zit\nchy", max_size=40))
def test_text_is_reported_as_cut_if_the_tokenizer_cuts_it(known, describe, count_tokens, text: str):
    assert ("read to word" in describe([text])[0]) == (count_tokens([text])[0] > known.max_tokens)


def test_text_is_flagged_if_its_words_are_mostly_unknown(describe):
    assert describe(["my skin is dry", "my skin is dry zzz"]) == ["ok"] * 2
    assert describe(["zzz qqq zzz qqq", "my zzz qqq zzz"]) == [MOSTLY_UNKNOWN] * 2


def test_unknown_limit_admits_95_percent_of_the_training_texts(known: TextTokenizer):
    half_foreign = ["my skin is dry"] * 80 + ["zzz qqq zzz qqq"] * 20
    assert choose_unknown_limit(known, half_foreign[:-16]) == 0.5  # 4 of 84
    limit = choose_unknown_limit(known, half_foreign)
    assert limit > 0.5
    adapted = TextTokenizer(known.tokenizer, 64, limit)
    assert build_describe(adapted)(half_foreign) == ["ok"] * 100
    assert choose_unknown_limit(known, [""]) == 0.5


def test_unknown_limit_is_saved_with_the_tokenizer(known: TextTokenizer, tmp_path: Path):
    TextTokenizer(known.tokenizer, 64, 0.7).save(tmp_path)
    assert read_tokenizer(tmp_path).unknown_limit == 0.7


@pytest.fixture(scope="module")
def describe_by_minilm(
    installed_weights: Callable[[str], Path],
) -> Callable[[list[str]], list[str]]:
    installed_weights(MINILM)
    tokenizer = load_tokenizer(find_preset(MINILM).location, MAX_TOKENS)
    built_in = [draw_case(0, index).text for index in range(200)]
    tokenizer.unknown_limit = choose_unknown_limit(tokenizer, built_in)
    return build_describe(tokenizer)


def test_other_languages_and_gibberish_are_flagged_but_english_is_not(
    describe_by_minilm: Callable[[list[str]], list[str]],
):
    assert describe_by_minilm(FOREIGN) == [MOSTLY_UNKNOWN] * len(FOREIGN)
    assert describe_by_minilm(ENGLISH) == ["ok"] * len(ENGLISH)
    whole = " ".join(["unbelievably"] * MAX_TOKENS)
    assert np.char.startswith(describe_by_minilm([whole])[0], "text: read to word ")


def test_real_questions_are_known_and_read_to_their_end(
    describe_by_minilm: Callable[[list[str]], list[str]], shared: Path
):
    table = pd.read_csv(shared / "data" / "dermavqa" / "encounters.csv", keep_default_na=False)
    statuses = pd.Series(describe_by_minilm(list(table["query_en"])))
    assert statuses.str.contains(MOSTLY_UNKNOWN).mean() <= 0.03
    assert statuses.str.contains("read to word").mean() <= 0.002  # one of 842 is longer


def test_classic_complaint_after_a_polite_opening_still_counts(
    tmp_path: Path, installed_weights: Callable[[str], Path]
):
    installed_weights(MINILM)
    cases = [case for case in (draw_case(0, index) for index in range(400)) if case.text]
    table = pd.DataFrame({"text": [case.text for case in cases]})
    table["eczema"] = [int(case.condition == "eczema") for case in cases]
    table.to_csv(tmp_path / "manifest.csv", index_label="example_id")
    values = {
        "data.manifest": tmp_path / "manifest.csv",
        "model.text.preset": MINILM,
        "model.text.pooling": "mean",
        "model.embedding_units": 64,
        "train.cache_folder": tmp_path / "cache",
        "train.epochs": 40,
        "export.enabled": "false",
    }
    sets = [argument for key, value in values.items() for argument in ("--set", f"{key}={value}")]
    run = tmp_path / "run"
    assert train.main(["--config", str(SMOKE), *sets, "--run-dir", str(run)]) == 0
    trained = run_folder.load_model(run)
    inputs = build_client_inputs(trained, [b""] * 3, [CLASSIC, POLITE + CLASSIC, POLITE])
    probabilities = compute_probabilities(trained.model(inputs, training=False))
    alone, behind, polite = logit(probabilities["eczema_text"].numpy())
    assert alone > polite + 0.5  # not more, since 400 texts teach few of the ways to say it
    # the mean over tokens dilutes it; if texts were cut at 64 tokens, it would not count at all
    assert behind - polite > (alone - polite) / 3
