"""Which classes were learned, and labels that go through them in turn or in proportion."""

import numpy as np
import pytest

from sagan.classes import Classes

NAMES = tuple("abcd")


def test_seeds_go_through_the_learned_classes_in_turn():
    assert Classes(NAMES).in_turn(range(3, 9)) == [3, 0, 1, 2, 3, 0]
    classes = Classes(NAMES, (0, 7, 1, 2))
    assert classes.in_turn([0, 1, 2, 5, 2**32 - 1]) == [1, 2, 3, 3, 1]


def test_classes_that_had_no_images_are_not_learned():
    assert Classes(NAMES, (1, 0, 2, 0)).learned == (0, 2)


def test_where_nobody_counted_all_classes_were_learned():
    assert Classes(NAMES).learned == (0, 1, 2, 3)


def test_a_model_without_classes_has_no_labels():
    assert Classes().learned == ()
    assert Classes().in_turn(range(5)) is None and Classes().in_proportion(5) is None


@pytest.mark.parametrize("counts", [(3, 1), (1, 0, 2, 997), (1, 1, 1), (5,), (0, 7)])
def test_labels_in_proportion_are_within_one_of_what_the_counts_say(counts):
    for number in (1, 10, 512):
        labels = Classes(NAMES[: len(counts)], counts).in_proportion(number)
        assert labels.shape == (number,) and labels.dtype == np.int64
        shown = np.bincount(labels, minlength=len(counts))
        assert np.abs(shown - np.array(counts) / sum(counts) * number).max() <= 1
        assert not shown[np.array(counts) == 0].any()


def test_labels_in_proportion_are_shuffled_in_the_same_way_each_time():
    labels = Classes(("a", "b")).in_proportion(64)
    assert 0 < np.count_nonzero(np.diff(labels)) < 63 and {*labels[:32]} == {0, 1}
    np.testing.assert_array_equal(labels, Classes(("a", "b")).in_proportion(64))
