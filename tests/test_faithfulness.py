"""Tests measures of explanations on hand-computed examples, such as perfect and empty maps."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from eczema_tf.evaluation.explanation_results import compare, estimate_figure
from eczema_tf.evaluation.intervals import Sampling
from eczema_tf.explanation.faithfulness_image import (
    build_centred_gaussian,
    compute_area,
    compute_deletion,
    compute_edge_map,
    compute_energy_inside,
    compute_insertion,
    draw_erased_cells,
    draw_random_map,
    points_at,
    rank_pixels,
    replace_step_by_step,
)
from eczema_tf.explanation.faithfulness_text import (
    compute_erasure,
    compute_precision_recall,
    compute_ranking_precision,
)
from eczema_tf.explanation.maps import find_peak
from eczema_tf.explanation.mu_fidelity import compute_mu_fidelity
from eczema_tf.explanation.sanity import (
    Depth,
    compute_relative_change,
    correlate_ranks,
    randomise_in_cascade,
    restoring,
)
from eczema_tf.schema import IMAGE
from eczema_tf.workflows.explanation_quality.photos import ask_again

SIDE = 20
LESION = np.zeros((SIDE, SIDE), bool)
LESION[2:8, 10:18] = True
PERFECT = LESION.astype("float32")
INVERTED = 1 - PERFECT
NOTHING = np.zeros((SIDE, SIDE), "float32")
PHOTO = np.where(LESION[..., None], [200.0, 40.0, 40.0], [90.0, 90.0, 90.0]).astype("float32")


def redness_of_the_lesion(photos: np.ndarray) -> np.ndarray:
    """A mock model: the share of the lesion that is still red, 1 for the photo and 0 without it."""
    return (photos[:, LESION, 0] > 150).mean(axis=1)


def undecided(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((SIDE, SIDE))


# Where a map lies


def test_peak_is_the_centre_of_the_highest_cell():
    heatmap = np.zeros((4, 8))
    heatmap[1, 6] = 0.3
    assert find_peak(heatmap) == (1.5 / 4, 6.5 / 8)
    assert find_peak(build_centred_gaussian(8, 8)) == (0.5, 0.5)  # four cells tie around the centre
    assert find_peak(np.zeros((4, 8))) is None


def test_pointing_allows_a_tolerance_around_the_mask():
    mask = np.zeros((100, 100), bool)
    mask[20:30, 60:70] = True
    heatmap = np.zeros((10, 10))
    heatmap[2, 6] = 1  # its centre is at row 25, column 65
    assert points_at(heatmap, mask, tolerance=0)
    beside = np.zeros((10, 10))
    beside[2, 7] = 1  # column 75, six pixels right of the mask's last column
    assert not points_at(beside, mask, tolerance=0.05)
    assert points_at(beside, mask, tolerance=0.06)


def test_pointing_allows_15_pixels_on_a_photo_of_500():
    mask = np.zeros((500, 500), bool)
    mask[200:300, 200:300] = True
    for column, hits in ((314, True), (315, False)):  # 299 is the mask's last column
        heatmap = np.zeros((500, 500))
        heatmap[250, column] = 1
        assert points_at(heatmap, mask) == hits


def test_map_of_zeros_points_at_nothing_and_has_no_energy():
    assert not points_at(NOTHING, LESION, tolerance=1.0)
    assert compute_energy_inside(NOTHING, LESION) == 0


def test_energy_inside_is_the_share_of_the_map_on_the_lesion():
    heatmap = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert compute_energy_inside(
        heatmap, np.array([[True, False], [False, True]])
    ) == pytest.approx(0.5)
    assert compute_energy_inside(heatmap, np.zeros((2, 2), bool)) == 0
    assert compute_energy_inside(PERFECT, LESION) == 1
    assert compute_energy_inside(INVERTED, LESION) == 0
    assert compute_energy_inside(np.ones((SIDE, SIDE)), LESION) == pytest.approx(LESION.mean())


# Baseline maps


def test_gaussian_is_symmetric_and_highest_at_the_centre():
    gaussian = build_centred_gaussian(9, 9)
    assert gaussian[4, 4] == 1
    np.testing.assert_allclose(gaussian, gaussian.T)
    np.testing.assert_allclose(gaussian, gaussian[::-1])
    assert gaussian[4, 0] == pytest.approx(math.exp(-((4 / 9) ** 2) / (2 * 0.25**2)))


def test_edge_map_is_positive_on_an_edge_and_zero_on_even_skin():
    photo = np.zeros((30, 45, 3))
    photo[:, 18:] = 100
    # the edge is between columns 17 and 18: in the cell of columns 9 to 17, and in the next one
    edges = compute_edge_map(photo, 3, 5)
    assert edges.shape == (3, 5)
    assert (edges[:, [1, 2]] > 0).all()
    assert (edges[:, [0, 3, 4]] == 0).all()
    # Sobel's filter gives (1 + 2 + 1) x 100 in one of nine columns
    np.testing.assert_allclose(edges[:, 1], 400 / 9)


def test_edge_map_may_have_cells_that_do_not_divide_the_photo():
    """Of 225 pixels, the last of 8 cells has 29; the filter gives the last two of them 4 each."""
    photo, expected = np.zeros((225, 225, 3)), np.zeros((8, 8))
    photo[-1], expected[-1] = 1, 2 * 4 / 29
    np.testing.assert_allclose(compute_edge_map(photo, 8, 8), expected)
    np.testing.assert_allclose(compute_edge_map(photo.swapaxes(0, 1), 8, 8), expected.T)


def test_random_maps_favour_no_cell():
    rng = np.random.default_rng(0)
    peaks = np.zeros((6, 6))
    for _ in range(3600):
        peaks += draw_random_map(6, 6, rng) == 1
    assert peaks.sum() == 3600
    assert peaks.min() > 60  # 100 expected in each cell, standard deviation 10
    assert peaks.max() < 140


# Deletion and insertion


def test_steps_replace_equal_shares_of_pixels_highest_first():
    photo, replacement = np.zeros((2, 2, 3)), np.ones((2, 2, 3))
    ranks = rank_pixels(np.array([[0.1, 0.9], [0.5, 0.3]]), np.zeros((2, 2)))
    np.testing.assert_array_equal(ranks, [[3, 0], [1, 2]])
    steps = replace_step_by_step(photo, replacement, ranks, 2)
    np.testing.assert_array_equal(
        steps[..., 0], [[[0, 0], [0, 0]], [[0, 1], [1, 0]], [[1, 1], [1, 1]]]
    )


def test_ties_between_pixels_are_broken_by_the_second_map():
    ranks = rank_pixels(np.array([[1.0, 0.0, 0.0]]), np.array([[0.0, 0.2, 0.7]]))
    np.testing.assert_array_equal(ranks, [[0, 2, 1]])


def test_area_under_a_curve_uses_the_trapezoidal_rule():
    assert compute_area(np.array([1.0, 1.0, 1.0])) == 1
    assert compute_area(np.array([1.0, 0.5, 0.0])) == pytest.approx(0.5)
    assert compute_area(np.array([1.0, 0.0, 0.0])) == pytest.approx(0.25)


def test_deletion_of_a_perfect_map_matches_the_hand_computed_area():
    """The lesion has 48 of 400 pixels; a perfect map deletes 40 in the first of ten steps."""
    area = compute_deletion(PHOTO, PERFECT, undecided(), redness_of_the_lesion)
    assert area == pytest.approx((0.5 + 8 / 48) / 10)


def test_perfect_map_beats_chance_and_inverted_map_is_worse():
    for compute, sign in ((compute_deletion, -1), (compute_insertion, 1)):
        perfect, inverted = (
            sign * compute(PHOTO, heatmap, undecided(), redness_of_the_lesion)
            for heatmap in (PERFECT, INVERTED)
        )
        chance = np.mean(
            [
                sign * compute(PHOTO, undecided(seed), undecided(), redness_of_the_lesion)
                for seed in range(1, 9)
            ]
        )
        assert perfect > chance + 0.15
        assert inverted < chance - 0.15


def test_map_of_zeros_deletes_like_a_random_map():
    chance = compute_deletion(PHOTO, undecided(), undecided(5), redness_of_the_lesion)
    assert compute_deletion(PHOTO, NOTHING, undecided(), redness_of_the_lesion) == chance


def test_deletion_ends_with_the_mean_colour_and_insertion_with_the_photo():
    seen = {}

    def look(name):
        def score(photos):
            seen[name] = photos
            return np.zeros(len(photos))

        return score

    compute_deletion(PHOTO, PERFECT, undecided(), look("deletion"))
    compute_insertion(PHOTO, PERFECT, undecided(), look("insertion"))
    np.testing.assert_array_equal(seen["deletion"][0], PHOTO)
    np.testing.assert_allclose(
        seen["deletion"][-1], np.broadcast_to(PHOTO.mean(axis=(0, 1)), PHOTO.shape), rtol=1e-6
    )
    np.testing.assert_array_equal(seen["insertion"][-1], PHOTO)
    assert np.ptp(seen["insertion"][0][..., 0]) < 0.9 * np.ptp(PHOTO[..., 0])


def test_insertion_begins_blurred_by_a_tenth_of_the_shorter_side():
    photo, seen = np.zeros((40, 120, 3), "float32"), []
    photo[20, 60] = 255

    def look(photos):
        seen.append(photos[0])
        return np.zeros(len(photos))

    compute_insertion(photo, photo[..., 0], photo[..., 0], look)
    spread = seen[0][..., 0].sum(axis=0)
    distances = np.arange(120) - 60
    assert np.sqrt((spread * distances**2).sum() / spread.sum()) == pytest.approx(4, rel=0.01)


# Words


RELEVANT = np.array([True, True, False, False, False])


def test_average_precision_ranks_words_by_absolute_score():
    # strength counts, not sign
    assert compute_ranking_precision(np.array([5.0, -4.0, 3.0, 2.0, 1.0]), RELEVANT) == 1
    assert compute_ranking_precision(
        np.array([1.0, 2.0, 3.0, 4.0, 5.0]), RELEVANT
    ) == pytest.approx((1 / 4 + 2 / 5) / 2)
    # without any score, it is the share of relevant words
    assert compute_ranking_precision(np.zeros(5), RELEVANT) == pytest.approx(2 / 5)


@pytest.mark.parametrize(
    "relevant", [np.ones(3, bool), np.zeros(3, bool), np.ones(1, bool), np.zeros(0, bool)]
)
def test_average_precision_is_undefined_if_all_or_no_words_are_relevant(relevant):
    assert math.isnan(compute_ranking_precision(np.ones(len(relevant)), relevant))


def test_precision_and_recall_match_hand_computed_values():
    # with a limit of a tenth of the strongest, words 0 and 2 are shown
    scores = np.array([1.0, -0.05, 0.5, 0.09, 0.0])
    assert compute_precision_recall(scores, RELEVANT, 0.1) == (0.5, 0.5)
    precision, recall = compute_precision_recall(np.zeros(5), RELEVANT, 0.1)  # nothing is shown
    assert math.isnan(precision)
    assert recall == 0
    assert math.isnan(compute_precision_recall(scores, np.zeros(5, bool), 0.1)[1])
    assert all(
        math.isnan(figure)
        for figure in compute_precision_recall(np.zeros(0), np.zeros(0, bool), 0.1)
    )


def test_erasure_matches_hand_computed_drops():
    """The answer is the sum of the weights of the words left: 0.6, 0.3, 0.1 and seven times 0."""
    weights = np.array([0.6, 0.3, 0.1, *[0.0] * 7])
    comprehensiveness, sufficiency = compute_erasure(weights, lambda kept: kept @ weights)
    # without the highest 1, 2 and 5 of 10 words
    assert comprehensiveness == pytest.approx((0.6 + 0.9 + 1.0) / 3)
    assert sufficiency == pytest.approx((0.4 + 0.1 + 0.0) / 3)
    inverted = compute_erasure(-weights, lambda kept: kept @ weights)
    assert inverted[0] == 0
    assert inverted[1] == pytest.approx(1.0)


def test_erasure_rounds_up_to_whole_words_and_accepts_a_single_word():
    counts = []
    compute_erasure(
        np.arange(7.0), lambda kept: counts.append(kept.sum(axis=1)) or np.zeros(len(kept))
    )
    # 0.7, 1.4 and 3.5 words are rounded up; first they are erased, then only they are kept
    np.testing.assert_array_equal(counts[0], [7, 6, 5, 3, 1, 2, 4])
    assert compute_erasure(np.array([2.0]), lambda kept: kept[:, 0] * 0.8) == pytest.approx(
        (0.8, 0.0)
    )


def test_erasure_does_not_round_up_a_whole_number_of_words():
    """The product of 0.28 and 25 is 7, but 7.000000000000001 in floating point."""
    counts = []
    compute_erasure(
        np.arange(25.0),
        lambda kept: counts.append(kept.sum(axis=1)) or np.zeros(len(kept)),
        shares=(0.28,),
    )
    np.testing.assert_array_equal(counts[0], [25, 18, 7])


# Sanity


def test_rank_correlation_handles_ties_and_constants():
    first = np.array(
        [[1, 2, 3, 4, 5], [1, 2, 3, 4, 5], [1, 1, 1, 1, 1], [1, 2, 2, 4, 5]], "float32"
    )
    second = np.array(
        [[10, 20, 30, 40, 99], [5, 4, 3, 2, 1], [1, 2, 3, 4, 5], [1, 3, 2, 4, 5]], "float32"
    )
    found = correlate_ranks(first, second)
    np.testing.assert_allclose(found[:2], [1, -1])
    assert math.isnan(found[2])  # a constant has no order
    assert found[3] == pytest.approx(9.5 / math.sqrt(9.5 * 10))  # the ties have a mean rank of 2.5
    np.testing.assert_allclose(
        correlate_ranks(first[:2].reshape(2, 5, 1), second[:2].reshape(2, 5, 1)), [1, -1]
    )


def test_relative_change_is_undefined_if_the_length_before_is_zero():
    before, after = np.array([[[3.0, 4.0]], [[0.0, 0.0]]]), np.array([[[3.0, 3.0]], [[1.0, 1.0]]])
    found = compute_relative_change(before, after)
    assert found[0] == pytest.approx(1 / 5)
    assert math.isnan(found[1])


class Weight:
    """Mimics the part of a Keras variable that is needed."""

    def __init__(self, value):
        self.value = np.array(value, "float64")

    def numpy(self):
        return self.value

    def assign(self, value):
        self.value = np.array(value)


def test_cascade_randomises_from_the_top_down_and_restores_the_weights():
    top, bottom = Weight(np.arange(100.0)), Weight(np.arange(100.0).reshape(4, 25))
    depths = [Depth("top", [top]), Depth("bottom", [bottom])]
    seen = randomise_in_cascade(
        depths, lambda: (top.value.copy(), bottom.value.copy()), np.random.default_rng(0)
    )
    assert (seen[0][0] != np.arange(100)).any()
    np.testing.assert_array_equal(seen[0][1], np.arange(100.0).reshape(4, 25))  # not randomised yet
    np.testing.assert_array_equal(seen[1][0], seen[0][0])  # stays randomised
    assert (seen[1][1] != np.arange(100.0).reshape(4, 25)).any()
    # shuffling keeps the distribution
    np.testing.assert_array_equal(np.sort(seen[1][1].ravel()), np.arange(100.0))
    np.testing.assert_array_equal(top.value, np.arange(100.0))
    np.testing.assert_array_equal(bottom.value, np.arange(100.0).reshape(4, 25))


def test_weights_are_restored_after_an_error():
    weight = Weight([1.0, 2.0, 3.0])

    def fail():
        raise RuntimeError("no explanation")

    with pytest.raises(RuntimeError, match="no explanation"):
        randomise_in_cascade([Depth("all", [weight])], fail, np.random.default_rng(1))
    np.testing.assert_array_equal(weight.value, [1, 2, 3])


def test_weights_are_restored_even_if_changed_in_place():
    weight = Weight([1.0, 2.0])
    with restoring([weight]):
        weight.value[:] = 7
    np.testing.assert_array_equal(weight.value, [1, 2])


# Comparisons


def test_gain_is_paired_and_positive_if_the_explanation_is_better():
    rng = np.random.default_rng(0)
    difficulty = rng.normal(size=60)
    rival = np.where(np.arange(60) == 3, np.nan, difficulty)
    values = {"map": difficulty - 0.1, "random": rival}
    sampling = Sampling(np.arange(60))
    lower = compare(values, "lower", sampling, "none")
    assert lower.cases == 60
    assert lower.gain_over["random"].value == pytest.approx(0.1)
    paired = lower.gain_over["random"]
    assert (paired.low, paired.reason) == (None, "no interval: no case differs from the others")
    assert lower.estimates["map"].high - lower.estimates["map"].low > 0.2
    higher = compare(values, "higher", sampling, "none")
    assert higher.gain_over["random"].value == pytest.approx(-0.1)


def test_mean_is_over_the_cases_where_a_figure_is_defined():
    values = np.where(np.arange(40) % 2, np.nan, np.arange(40) / 2)  # 0, 1, ..., 19
    sampling = Sampling(np.arange(40))
    estimate = estimate_figure(values, sampling, "nothing")
    # Student's t with 19 degrees of freedom
    reach = 2.0930240544 * np.arange(20).std(ddof=1) / np.sqrt(20)
    expected = (9.5, 9.5 - reach, 9.5 + reach)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx(expected)
    assert estimate_figure(np.full(40, np.nan), sampling, "nothing").reason == "nothing"


def test_few_groups_get_no_interval_and_hits_get_wilsons_interval():
    values = np.where(np.arange(40) < 9, np.arange(40.0), np.nan)
    few = estimate_figure(values, Sampling(np.arange(40)), "nothing")
    assert (few.low, few.reason) == (None, "no interval: 9 groups, 10 are needed")
    pairs = estimate_figure(np.arange(18.0), Sampling(np.arange(18) // 2), "nothing")
    assert pairs.reason == "no interval: 9 groups, 10 are needed"
    hits = estimate_figure(np.ones(20), Sampling(np.arange(20)), "nothing")
    assert (hits.low, hits.high) == pytest.approx((1 / (1 + 1.959964**2 / 20), 1))  # Wilson's


def test_mu_fidelity_is_one_if_drops_are_proportional_to_summed_scores():
    erased = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 1], [0, 1, 1]], bool)
    scores = np.array([0.5, -0.2, 0.1])
    falls = np.array([0.5, -0.2, 0.6, -0.1])  # sums of the erased scores
    assert compute_mu_fidelity(scores, erased, 0.3 * falls) == pytest.approx(1)
    assert compute_mu_fidelity(-scores, erased, falls) == pytest.approx(-1)
    assert np.isnan(compute_mu_fidelity(scores, erased, np.zeros(4)))
    assert np.isnan(compute_mu_fidelity(np.zeros(3), erased, falls))


def test_erased_cells_are_whole_and_cover_a_fifth_of_the_photo():
    erased = draw_erased_cells(45, 91, np.random.default_rng(0))  # cells of 5 by 10 or 11 pixels
    assert erased.shape[1:] == (45, 91)
    assert erased.mean() == pytest.approx(0.2, abs=0.04)
    assert (np.diff(erased, axis=1).any(axis=(0, 2)).nonzero()[0] % 5 == 4).all()
    assert np.diff(erased, axis=2).any(axis=(0, 1)).sum() == 8  # borders between nine cells


def test_gains_are_never_shares_and_are_grouped_like_their_cases():
    sampling = Sampling(np.arange(40) // 2)
    ones = compare({"map": np.ones(40), "random": np.zeros(40)}, "higher", sampling, "none")
    assert ones.gain_over["random"].reason == "no interval: no case differs from the others"
    rng = np.random.default_rng(0)
    values = {"map": rng.normal(size=20).repeat(2), "random": np.zeros(40)}
    once = {name: of_name[::2] for name, of_name in values.items()}
    found = compare(values, "higher", sampling, "none").gain_over["random"]
    expected = compare(once, "higher", Sampling(np.arange(20)), "none").gain_over["random"]
    assert (found.low, found.p) == pytest.approx((expected.low, expected.p))


def test_interval_of_hits_ignores_cases_where_they_are_undefined():
    hits = np.where(np.arange(60) < 40, np.arange(60) % 4 > 0, np.nan)
    found = estimate_figure(hits, Sampling(np.arange(60)), "nothing")
    expected = estimate_figure(hits[:40], Sampling(np.arange(40)), "nothing")
    assert (found.low, found.high) == (expected.low, expected.high)


def test_asking_the_model_again_tells_a_true_map_from_a_false_one():
    rng = np.random.default_rng(0)
    photo = rng.uniform(0, 60, (32, 32, 3)).astype("float32")
    photo[4:12, 4:12] = 255  # the model looks only here

    def predict_variants(case: int, changed: dict[str, np.ndarray]) -> np.ndarray:
        return (changed[IMAGE][:, 4:12, 4:12].mean(axis=(1, 2, 3)) - 150) / 30

    last_map = SimpleNamespace(output=SimpleNamespace(shape=(None, 8, 8, 16)))
    explainer = SimpleNamespace(submodels=SimpleNamespace(to_last_map=last_map))
    cases = SimpleNamespace(explainer=explainer, predict_variants=predict_variants)
    measures = ask_again(cases, 0, photo, rng)
    true, false = np.zeros((8, 8)), np.zeros((8, 8))
    true[1:3, 1:3] = false[5:7, 5:7] = 1
    assert measures["deletion"](true) < measures["deletion"](false) - 0.2
    assert measures["insertion"](true) > measures["insertion"](false) + 0.2
    assert measures["mu_fidelity"](true) > 0.7 > measures["mu_fidelity"](false)


def test_cases_with_an_undefined_figure_are_not_counted():
    explained = np.where(np.arange(40) < 25, np.arange(40.0), np.nan)
    values = {"map": explained, "random": np.zeros(40)}
    assert compare(values, "higher", Sampling(np.arange(40)), "none").cases == 25
