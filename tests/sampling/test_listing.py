"""docs/solvers.md says what the code says."""

import pathlib

from adm_jax.sampling import listing


def test_the_page_is_the_code_s():
  """If not: python -m adm_jax.sampling.listing > docs/solvers.md."""
  path = pathlib.Path(__file__).parents[2] / 'docs' / 'solvers.md'
  assert path.read_text() == listing.page()
