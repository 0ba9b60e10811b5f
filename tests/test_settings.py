"""The plan of a run, from options alone; test_train.py makes plans of run folders and checkpoints too."""

from pathlib import Path

import pytest

from sagan.learner import TrainingError
from sagan.networks import SaganConfig
from sagan.recipe import PRESETS, Recipe
from sagan.settings import Measuring, Plan, plan_run

WORDS = ["--data", "faces", "--out", "run"]


def plan(**given: object) -> Plan:
    return plan_run({"data": ["faces"], "out": Path("run"), "resume": False, "words": WORDS} | given)


def test_what_is_not_given_is_by_default():
    found = plan()
    assert (found.config, found.recipe) == (SaganConfig(), Recipe())
    assert found.data == (Path("faces"),) and found.label_columns == ()
    assert found.crop is found.labels is found.measuring is found.start_from is None
    assert found.about["command"] == "python train.py --data faces --out run"


def test_what_is_given_counts_more_than_the_preset():
    found = plan(preset="tutorial", lr_decay=0.25)
    assert found.recipe == Recipe(**PRESETS["tutorial"] | {"lr_decay": 0.25})


def test_a_run_of_minutes_has_no_steps():
    assert plan(minutes=3.0).recipe == Recipe(steps=None, minutes=3.0)


@pytest.mark.parametrize("given", [{}, {"measure_every": 0.0}], ids=["absent", "zero"])
def test_a_run_that_is_not_measured_has_one_plan_and_keeps_nothing_of_it(given):
    found = plan(**given)
    assert found.measuring is None
    assert not any(name.startswith("measure") for name in found.about)


def test_a_run_is_measured_by_inception_on_as_many_images_as_there_are_unless_it_is_said_otherwise():
    given = {"measure_every": 2.5, "measure_reference": ["held", "out.zip"]}
    reference = (Path("held"), Path("out.zip"))
    assert plan(**given).measuring == Measuring(2.5, reference, "inception", None)
    found = plan(**given, measure_features="a:B", measure_count=12)
    assert found.measuring == Measuring(2.5, reference, "a:B", 12)
    assert found.about.items() >= {**given, "measure_features": "a:B", "measure_count": 12}.items()


@pytest.mark.parametrize(
    "given",
    [
        {"measure_every": 1.0},
        {"measure_reference": ["held"]},
        {"measure_features": "a:B"},
        {"measure_count": 9},
    ],
    ids=lambda given: next(iter(given)),
)
def test_half_a_measurement_is_refused(given):
    with pytest.raises(TrainingError, match=r"^Measuring needs both --measure-every KIMG and "):
        plan(**given)
