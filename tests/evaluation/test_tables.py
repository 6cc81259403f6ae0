"""The paper's rows: every row can be built, sized and checked without weights."""

import math

import pytest

from adm_jax.errors import UsageError
from adm_jax.evaluation import comparison, reproduce, row_cost, tables
from adm_jax.weights import catalog, flags

SAMPLED = [row for row in tables.ROWS if row.sampled]


def _id(row):
  return f'{row.table}-{row.name}'


def test_names_are_unique_and_addresses_are_published_ones():
  assert len({(row.table, row.name) for row in tables.ROWS}) == len(tables.ROWS)
  batches = [row.batch for row in tables.ROWS if row.batch]
  assert len(set(batches)) == len(batches) == 27
  for row in tables.ROWS:
    if row.batch:
      assert row.batch.rsplit('/', 1)[0] == tables.REFERENCES[row.reference].rsplit('/', 1)[0]


@pytest.mark.parametrize('row', SAMPLED, ids=_id)
def test_the_networks_of_a_recipe_fit_together(row):
  given = row.sampled
  cost = row_cost.cost(given)
  model = catalog.find(given.model)
  assert cost.models[given.model] == model.parameters
  if given.classifier:
    assert model.classifier == given.classifier
    assert cost.evaluations[given.classifier] == cost.evaluations[given.model]
  # The reference has images of the size that comes out last.
  words = flags.parse(catalog.find(given.upsample or given.model).kind,
                      catalog.find(given.upsample or given.model).flags)
  size = words.get('large_size', words.get('image_size'))
  assert {'bedroom': 256, 'cat': 256, 'horse': 256}.get(row.reference, row.reference) in (
      size, str(size))
  if given.upsample:
    assert words['small_size'] == flags.parse(model.kind, model.flags)['image_size']
  steps = cost.evaluations[given.model]
  assert steps == {'ddim25': 25, '1000': 1000}.get(given.respacing, 250)
  assert reproduce.describe(row, reproduce.SampleOptions(), work=False).count('\n') >= 3


@pytest.mark.parametrize('row', tables.ROWS, ids=_id)
def test_what_is_expected_is_possible_and_tolerated(row):
  assert row.sampled or row.batch or 'not published' in row.note
  assert set(row.expected) <= set(tables.METRICS)
  for key, value in row.expected.items():
    assert 0 < row.tolerance[key] < 0.05 * value + 0.01
    assert value < (1 if key in ('precision', 'recall') else 300)


def test_the_numbers_of_the_paper_agree_from_table_to_table():
  """256 guided stands in tables 4, 5, 8 and 14; the rows of LSUN in 5 and 16."""
  def fid(table, name):
    return tables.select(table, name)[0].expected['fid']
  assert fid(4, '256-cond-guided-1') == fid(5, '256-guided') == fid(8, '256-guided-1980K') == fid(
      14, '256-scale-1')
  for name in ('bedroom', 'cat', 'horse'):
    assert fid(5, name) == fid(16, f'{name}-1000')
  assert fid(15, 'bedroom-90-60-60-20-20') == fid(16, 'bedroom-swept')


def test_rows_are_found_by_table_and_name():
  assert len(tables.select(15, None)) == 4 and len(tables.select(None, None)) == len(tables.ROWS)
  assert {row.table for row in tables.select(None, '256-guided')} == {5}
  with pytest.raises(UsageError, match='did you mean.*256-guided'):
    tables.select(None, '256-gided')
  with pytest.raises(UsageError, match='table 7 has no row.*4, 5, 6, 8, 14, 15, 16'):
    tables.select(7, None)


def test_a_verdict_counts_only_for_all_samples():
  row = tables.select(5, '256-guided')[0]
  def result(n, fid, published=True):
    values = {'fid': {'label': 'FID', 'value': fid}, 'kid': {'label': 'KID', 'value': 0.001}}
    return comparison.Result(row, 'x', {'n': n, 'values': values, 'title': 't', 'notes': [],
                                           'published': published})
  assert result(50_000, 4.65).rows()[0] == ('FID', 4.59, 4.65, 'agrees')
  assert 'off by' in result(50_000, 4.8).rows()[0][3]
  assert 'not comparable' in result(1000, 4.59).rows()[0][3]
  # Another extractor's number is no FID, precision or recall of the paper's.
  assert result(50_000, 4.59, published=False).rows()[0][1:] == (None, 4.59, '')
  text = comparison.markdown([result(50_000, 4.65)])
  assert '| Table 5, 256-guided | FID | 4.59 | 4.65 | agrees |' in text
  assert math.isclose(row.tolerance['fid'], 0.006 + 0.03 * 4.59)


def test_work_is_counted_from_the_networks():
  """0.2194 TFLOP an evaluation of the 64 x 64 model, as counted elsewhere from the reference."""
  cost = row_cost.RowCost({}, {'imagenet64': 250})
  assert math.isclose(row_cost.flops(cost), 250 * 0.2194e12, rel_tol=0.01)
