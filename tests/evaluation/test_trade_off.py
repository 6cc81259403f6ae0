"""docs/trade_off.md: what it says was measured, and what has to hold does."""

import pathlib

import pytest

from adm_jax.evaluation import sweep, sweep_pages

DOCS = pathlib.Path(__file__).parents[2] / 'docs'
FOUND = sweep.from_json((DOCS / 'trade_off.json').read_text())
MEASURES = [point.measures for point in FOUND.points]


def test_the_page_has_the_table_of_what_was_measured():
  assert sweep_pages.table(FOUND) in (DOCS / 'trade_off.md').read_text()


def test_recall_falls_with_the_scale_and_precision_rises_up_to_2():
  points = FOUND.points
  scales = [point.scale for point in points]
  assert scales == [1, 1.5, 2, 3, 5, 8]
  precision = [point.measures.precision for point in points if point.scale <= 2]
  assert precision == sorted(precision) and precision[-1] > precision[0] + 0.02
  recall = [point.measures.recall for point in points]
  assert recall == sorted(recall, reverse=True) and recall[-1] < recall[0] - 0.2


def test_guided_samples_are_of_the_asked_class():
  """As often, nearly, as the judge is right on real images."""
  assert FOUND.accuracy >= 0.9
  assert max(measures.agreement for measures in MEASURES) >= 0.92 * FOUND.accuracy


def test_conditional_samples_are_near_the_real_images():
  """In units of what as many training images have."""
  real = FOUND.training[0]
  assert {measures.num for measures in MEASURES} == {real.num}
  assert FOUND.nearest.measures.frechet_distance <= 5 * real.frechet_distance


def test_samples_are_no_copies():
  """They are about as far from the training images as others are that the model never saw."""
  assert FOUND.copies.samples == pytest.approx(FOUND.copies.reference, rel=0.5)
