"""What several tests of the evaluator share."""

import functools

import golden_metrics
import pytest


@pytest.fixture
def metrics(request):
  return _inputs(request.param)


_inputs = functools.cache(golden_metrics.inputs)
