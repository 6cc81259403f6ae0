"""The ADM paper's tables, row by row, as data (arXiv 2105.05233; every row that concerns ADM).

A row says how a model is sampled, or names a batch of samples that was published, with the
reference that it is measured against and what the paper measured. Where the paper says 25 steps,
this takes 25 steps of DDIM. The 64 x 64 weights that were published are those with dropout.
`reproduce.job` makes its samples.
"""

import dataclasses

from adm_jax.errors import UsageError

_PUBLISHED = 'https://openaipublic.blob.core.windows.net/diffusion/jul-2021/ref_batches/'

# The reference batches: 10,000 real images and the statistics of all.
REFERENCES = {
    'bedroom': _PUBLISHED + 'lsun/bedroom/VIRTUAL_lsun_bedroom256.npz',
    'cat': _PUBLISHED + 'lsun/cat/VIRTUAL_lsun_cat256.npz',
    'horse': _PUBLISHED + 'lsun/horse/VIRTUAL_lsun_horse256.npz',
    '64': _PUBLISHED + 'imagenet/64/VIRTUAL_imagenet64_labeled.npz',
    '128': _PUBLISHED + 'imagenet/128/VIRTUAL_imagenet128_labeled.npz',
    '256': _PUBLISHED + 'imagenet/256/VIRTUAL_imagenet256_labeled.npz',
    '512': _PUBLISHED + 'imagenet/512/VIRTUAL_imagenet512.npz',
}

METRICS = {'fid': 'FID', 'sfid': 'sFID', 'inception_score': 'IS', 'precision': 'Precision',
           'recall': 'Recall'}


@dataclasses.dataclass(frozen=True)
class Sampled:
  """How the samples of a row are made.

  Attributes:
    model: the name of a published model (or anything else that `pipeline.load` takes).
    classifier: the name of what guides it; None for no guidance.
    scale: of the classifier's gradient.
    respacing: which steps of the process are taken; None: the paper's for the model.
    solver: the name of the method.
    upsample: the name of the upsampler that enlarges the images; None for none.
    upsample_respacing: the same of the upsampler; None: as the model's.
    upsample_solver: None: as the model's.
  """
  model: str
  classifier: str | None = None
  scale: float | None = None
  respacing: str | None = None
  solver: str = 'ancestral'
  upsample: str | None = None
  upsample_respacing: str | None = None
  upsample_solver: str | None = None


@dataclasses.dataclass(frozen=True)
class Row:
  """One row.

  Attributes:
    table: the paper's number.
    name: short, unique.
    reference: a key of `REFERENCES`.
    expected: {key of `METRICS`: what the paper says}; the missing are not in its table.
    sampled: how its samples are made; None if there is nothing to sample.
    batch: the address of the published samples, where this row is about them.
    note: why it cannot be run, or what to know.
  """
  table: int
  name: str
  reference: str
  expected: dict[str, float]
  sampled: Sampled | None = None
  batch: str | None = None
  note: str = ''

  @property
  def tolerance(self) -> dict[str, float]:
    """How far a measurement may be off: rounding for published samples, else also the draw.

    FIDs of 50,000 other samples of one model vary by 2 % or so (Karras et al. 2022).
    """
    rounding = {'fid': 0.006, 'sfid': 0.006, 'inception_score': 0.006, 'precision': 0.006,
                'recall': 0.006}
    draw = {'fid': 0.03, 'sfid': 0.03, 'inception_score': 0.03, 'precision': 0.02, 'recall': 0.02}
    return {key: rounding[key] + (0 if self.batch else draw[key] * value)
            for key, value in self.expected.items()}


def _paper(fid=None, sfid=None, inception_score=None, precision=None, recall=None):
  values = dict(zip(METRICS, (fid, sfid, inception_score, precision, recall), strict=True))
  return {key: value for key, value in values.items() if value is not None}


def _model(size, classifier=None, scale=None, steps='250'):
  """Returns how an ImageNet model is sampled, guided at `scale` if given; 25 steps are DDIM's."""
  guide = None if scale is None else f'imagenet{classifier or size}-classifier'
  respacing, solver = ('ddim25', 'ddim') if steps == '25' else (steps, 'ancestral')
  return Sampled(f'imagenet{size}', guide, scale, respacing, solver)


def _stack(base, size, steps, scale=None):
  """Lets `{base}_{size}` enlarge a base model's samples; steps (base's, upsampler's)."""
  own = ({} if steps[0] == steps[1] else
         dict(upsample_respacing='ddim25', upsample_solver='ddim'))
  return dataclasses.replace(_model(base, scale=scale, steps=steps[0]), upsample=f'{base}_{size}',
                             **own)


def _lsun(name, respacing):
  return Sampled(f'lsun-{name}', respacing=respacing)


_GIVEN_STEPS = 'the weights after {} iterations were not published; train {}'

_ALL = (
    # Table 4: guidance at 256 x 256.
    Row(4, '256-uncond', '256', _paper(26.21, 6.35, 39.70, .61, .63), _model('256-uncond')),
    Row(4, '256-uncond-guided-1', '256', _paper(33.03, 6.99, 32.92, .56, .65),
        _model('256-uncond', '256', 1.0)),
    Row(4, '256-uncond-guided-10', '256', _paper(12.00, 10.40, 95.41, .76, .44),
        _model('256-uncond', '256', 10.0)),
    Row(4, '256-cond', '256', _paper(10.94, 6.02, 100.98, .69, .63), _model('256')),
    Row(4, '256-cond-guided-1', '256', _paper(4.59, 5.25, 186.70, .82, .52),
        _model('256', scale=1.0)),
    Row(4, '256-cond-guided-10', '256', _paper(9.11, 10.93, 283.92, .88, .32),
        _model('256', scale=10.0)),
    # Table 5: the main results.
    Row(5, 'bedroom', 'bedroom', _paper(1.90, 5.59, None, .66, .51), _lsun('bedroom', '1000')),
    Row(5, 'horse-nodropout', 'horse', _paper(2.95, 5.94, None, .69, .55),
        _lsun('horse-nodropout', '1000')),
    Row(5, 'horse', 'horse', _paper(2.57, 6.81, None, .71, .55), _lsun('horse', '1000')),
    Row(5, 'cat', 'cat', _paper(5.57, 6.69, None, .63, .52), _lsun('cat', '1000')),
    Row(5, '64', '64', _paper(2.07, 4.29, None, .74, .63), _model('64')),
    Row(5, '128', '128', _paper(5.91, 5.09, None, .70, .65), _model('128')),
    Row(5, '128-guided-25', '128', _paper(5.98, 7.04, None, .78, .51),
        _model('128', scale=1.25, steps='25')),
    Row(5, '128-guided', '128', _paper(2.97, 5.09, None, .78, .59), _model('128', scale=0.5)),
    Row(5, '256', '256', _paper(10.94, 6.02, None, .69, .63), _model('256')),
    Row(5, '256-guided-25', '256', _paper(5.44, 5.32, None, .81, .49),
        _model('256', scale=2.5, steps='25')),
    Row(5, '256-guided', '256', _paper(4.59, 5.25, None, .82, .52), _model('256', scale=1.0)),
    Row(5, '512', '512', _paper(23.24, 10.19, None, .73, .60), _model('512')),
    Row(5, '512-guided-25', '512', _paper(8.41, 9.67, None, .83, .47),
        _model('512', scale=9.0, steps='25')),
    Row(5, '512-guided', '512', _paper(7.72, 6.57, None, .87, .42), _model('512', scale=4.0)),
    # Table 6: upsampling; only the low-resolution model is guided.
    Row(6, '256-upsampled', '256', _paper(7.49, 5.13, 127.49, .72, .63),
        _stack('64', '256', ('250', '250'))),
    Row(6, '256-guided-upsampled', '256', _paper(3.94, 6.14, 215.84, .83, .53),
        _stack('64', '256', ('250', '250'), 1.0)),
    Row(6, '512-upsampled', '512', _paper(9.96, 5.62, 121.78, .75, .64),
        _stack('128', '512', ('250', '250'))),
    Row(6, '512-guided-upsampled-25-25', '512', _paper(5.96, 12.10, 187.87, .81, .54),
        _stack('128', '512', ('25', '25'), 1.25),
        note="the paper's classifier for this base was another one than the published"),
    Row(6, '512-guided-upsampled-250-25', '512', _paper(4.11, 9.57, 219.29, .83, .55),
        _stack('128', '512', ('250', '25'), 0.5),
        note="the paper's classifier for this base was another one than the published"),
    Row(6, '512-guided-upsampled', '512', _paper(3.85, 5.86, 221.72, .84, .53),
        _stack('128', '512', ('250', '250'), 0.5),
        note="the paper's classifier for this base was another one than the published"),
    # Table 8: FID through training; only the last weights were published.
    *(Row(8, f'128-guided-{steps}', '128', _paper(fid),
          note=_GIVEN_STEPS.format(steps, 'configs/imagenet128.py'))
      for steps, fid in (('250K', 7.97), ('500K', 5.31), ('1M', 4.10), ('2M', 3.42))),
    Row(8, '128-guided-4360K', '128', _paper(3.09), _model('128', scale=1.0)),
    *(Row(8, f'256-guided-{steps}', '256', _paper(fid),
          note=_GIVEN_STEPS.format(steps, 'configs/imagenet256.py'))
      for steps, fid in (('250K', 12.21), ('500K', 7.95), ('750K', 6.49), ('1M', 5.74),
                         ('1.5M', 5.01))),
    Row(8, '256-guided-1980K', '256', _paper(4.59), _model('256', scale=1.0)),
    # Table 14: the scales that table 5 was made with.
    Row(14, '64-scale-1', '64', {}, _model('64', scale=1.0),
        note='the paper gives the scale, and no FID of this model guided'),
    *(Row(14, f'{size}-scale-{scale:g}', size, _paper(fid), _model(size, scale=scale, steps=steps))
      for size, scale, steps, fid in (
          ('128', 0.5, '250', 2.97), ('256', 1.0, '250', 4.59), ('512', 4.0, '250', 7.72),
          ('128', 1.25, '25', 5.98), ('256', 2.5, '25', 5.44), ('512', 9.0, '25', 8.41))),
    # Table 15: how to spend 250 steps on bedrooms.
    *(Row(15, f'bedroom-{spec.replace(",", "-")}', 'bedroom', _paper(fid), _lsun('bedroom', spec))
      for spec, fid in (('50,50,50,50,50', 2.31), ('90,60,60,20,20', 2.02),
                        ('100,50,40,30,30', 2.03), ('90,50,50,30,30', 2.07))),
    # Table 16: the same for all of LSUN.
    *(Row(16, f'{name}-{label}', name, _paper(fid, sfid), _lsun(name, spec))
      for name, values in (('bedroom', ((1.90, 5.59), (2.31, 6.12), (2.02, 6.12))),
                           ('horse', ((2.57, 6.81), (3.45, 7.55), (2.83, 7.08))),
                           ('cat', ((5.57, 6.69), (7.03, 8.24), (5.94, 7.43))))
      for (label, spec), (fid, sfid) in zip(
          (('1000', '1000'), ('uniform', '250'), ('swept', '90,60,60,20,20')), values)),
)


def _published():
  """The 27 batches of samples that were published beside the references, as rows."""
  def batch(table, name, reference, file, *expected):
    address = REFERENCES[reference].rsplit('/', 1)[0] + f'/{file}.npz'
    return Row(table, f'published-{name}', reference, _paper(*expected), batch=address)
  yield batch(5, 'bedroom', 'bedroom', 'admnet_dropout_lsun_bedroom', 1.90, 5.59, None, .66, .51)
  yield batch(5, 'bedroom-ddpm', 'bedroom', 'ddpm_lsun_bedroom', 4.89, 9.07, None, .60, .45)
  yield batch(5, 'bedroom-iddpm', 'bedroom', 'iddpm_lsun_bedroom', 4.24, 8.21, None, .62, .46)
  yield batch(5, 'bedroom-stylegan', 'bedroom', 'stylegan_lsun_bedroom', 2.35, 6.62, None, .59, .48)
  yield batch(5, 'cat', 'cat', 'admnet_dropout_lsun_cat', 5.57, 6.69, None, .63, .52)
  yield batch(5, 'cat-stylegan2', 'cat', 'stylegan2_lsun_cat', 7.25, 6.33, None, .58, .43)
  yield batch(5, 'horse', 'horse', 'admnet_dropout_lsun_horse', 2.57, 6.81, None, .71, .55)
  yield batch(5, 'horse-nodropout', 'horse', 'admnet_lsun_horse', 2.95, 5.94, None, .69, .55)
  yield batch(5, '64', '64', 'admnet_imagenet64', 2.61, 3.77, None, .73, .63)
  yield batch(5, '64-iddpm', '64', 'iddpm_imagenet64', 2.92, 3.79, None, .74, .62)
  yield batch(5, '64-biggan', '64', 'biggan_deep_imagenet64', 4.06, 3.96, None, .79, .48)
  yield batch(5, '128', '128', 'admnet_imagenet128', 5.91, 5.09, None, .70, .65)
  yield batch(5, '128-guided', '128', 'admnet_guided_imagenet128', 2.97, 5.09, None, .78, .59)
  yield batch(5, '128-guided-25', '128', 'admnet_guided_25step_imagenet128', 5.98, 7.04, None, .78,
              .51)
  yield batch(5, '128-biggan', '128', 'biggan_deep_trunc1_imagenet128', 6.02, 7.18, None, .86, .35)
  yield batch(4, '256', '256', 'admnet_imagenet256', 10.94, 6.02, 100.98, .69, .63)
  yield batch(4, '256-guided', '256', 'admnet_guided_imagenet256', 4.59, 5.25, 186.70, .82, .52)
  yield batch(5, '256-guided-25', '256', 'admnet_guided_25step_imagenet256', 5.44, 5.32, None, .81,
              .49)
  yield batch(6, '256-guided-upsampled', '256', 'admnet_guided_upsampled_imagenet256', 3.94, 6.14,
              215.84, .83, .53)
  yield batch(6, '256-upsampled', '256', 'admnet_upsampled_imagenet256', 7.49, 5.13, 127.49, .72,
              .63)
  yield batch(5, '256-biggan', '256', 'biggan_deep_trunc1_imagenet256', 6.95, 7.36, None, .87, .28)
  yield batch(6, '512', '512', 'admnet_imagenet512', 23.24, 10.19, 58.06, .73, .60)
  yield batch(6, '512-guided', '512', 'admnet_guided_imagenet512', 7.72, 6.57, 172.71, .87, .42)
  yield batch(5, '512-guided-25', '512', 'admnet_guided_25step_imagenet512', 8.41, 9.67, None, .83,
              .47)
  yield batch(6, '512-guided-upsampled', '512', 'admnet_guided_upsampled_imagenet512', 3.85, 5.86,
              221.72, .84, .53)
  yield batch(6, '512-upsampled', '512', 'admnet_upsampled_imagenet512', 9.96, 5.62, 121.78, .75,
              .64)
  yield batch(5, '512-biggan', '512', 'biggan_deep_trunc1_imagenet512', 8.43, 8.13, None, .88, .29)


ROWS = (*_ALL, *_published())


def select_all(words: str) -> list[Row]:
  """The rows of '5/256-guided,14,64': of a table, of a name, of a name in a table; none twice.

  Raises:
    UsageError: there is none.
  """
  found = []
  for word in words.split(','):
    table, slash, name = word.strip().partition('/')
    if not slash and not table.isdecimal():
      table, name = '', table
    if slash and not (table.isdecimal() and name):
      raise UsageError(f'--rows {word}: give TABLE, NAME or TABLE/NAME, with commas')
    rows = select(int(table) if table else None, name or None)
    found += [row for row in rows if row not in found]
  return found


def select(table: int | None, name: str | None) -> list[Row]:
  """The rows of a table, or of one name (in that table), or all.

  Raises:
    UsageError: there is none.
  """
  import difflib

  tables = sorted({row.table for row in ROWS})
  if table is not None and table not in tables:
    raise UsageError(f'table {table} has no row to reproduce: give {", ".join(map(str, tables))}')
  rows = [row for row in ROWS if table in (None, row.table)]
  if name is None:
    return rows
  found = [row for row in rows if row.name == name]
  if not found:
    near = difflib.get_close_matches(name, [row.name for row in rows], n=3, cutoff=0.3)
    raise UsageError(f'there is no row {name!r}' + (f': did you mean {", ".join(near)}?' if near
                                                   else ': adm reproduce lists them'))
  return found
