"""A minute of `fuzz.py`: readers refuse damaged files in one line. By hand, let it run longer."""

import fuzz
import pytest


@pytest.mark.parametrize('reader', list(fuzz.modules()))
def test_what_is_damaged_is_read_or_refused_in_a_line_that_names_it(reader):
  outcome = fuzz.run(reader, count=300, seconds=30)  # a start on a busy machine takes most of it
  assert outcome.count >= 20 and not outcome.findings, outcome
