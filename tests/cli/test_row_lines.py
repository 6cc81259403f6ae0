"""The `adm sample` line that is printed for a row asks for what the row is."""

import dataclasses
import shlex

import pytest
import tiny_models

from adm_jax.cli import sample, sampling_options
from adm_jax.cli.parser import Parser
from adm_jax.evaluation import reproduce, tables
from adm_jax.evaluation.reproduce import SampleOptions
from adm_jax.evaluation.tables import Sampled
from adm_jax.sampling.jobs import SamplingJob

SAMPLED = [row for row in tables.ROWS if row.sampled]
OPTIONS = SampleOptions(12, 3, batch_size=4, fsdp=1, dtype='float32')


def _read(sampled, options):
  """Gives the line to the real parser."""
  parser = Parser(prog='adm sample')
  sample.add_arguments(parser)
  program, command, *words = shlex.split(reproduce.command(sampled, options))
  assert (program, command) == ('adm', 'sample')
  arguments = parser.parse_args([*words, '--out', 'OUT'])
  sampling_options.fill_in_solver(arguments)
  sample.check(arguments)
  return arguments


@pytest.mark.parametrize('row', SAMPLED, ids=lambda row: f'{row.table}-{row.name}')
def test_the_line_of_a_row_is_read_as_its_fields(row):
  found = vars(_read(row.sampled, SampleOptions(num=100, seed=7)))
  if found['scale'] is not None:
    found['scale'] = float(found['scale'])
  assert Sampled(**{field.name: found.pop(field.name)
                    for field in dataclasses.fields(Sampled)}) == row.sampled
  assert (found['num'], found['seed']) == (100, 7)
  assert not any(found[name] for name in ('weights', 'classifier_weights', 'upsample_weights',
                                          'batch_size', 'fsdp', 'dtype', 'steps', 'classes'))


def test_the_line_has_the_options():
  found = _read(Sampled('a', 'b', 1.0, upsample='c'),
                SampleOptions(5, 1, 'a b.pt', 'b.pt', 'c.pt', 4, 2, 'bfloat16'))
  assert (found.weights, found.classifier_weights, found.upsample_weights) == (
      'a b.pt', 'b.pt', 'c.pt')
  assert (found.num, found.seed, found.batch_size, found.fsdp, found.dtype) == (
      5, 1, 4, 2, 'bfloat16')


def _said(job: SamplingJob):
  """What two jobs must agree on to make the same images."""
  return {'description': job.pipeline.description,
          **{field.name: getattr(job, field.name) for field in dataclasses.fields(job)
             if field.name not in ('pipeline', 'base')},
          'base': _said(job.base) if isinstance(job.base, SamplingJob) else job.base}


@pytest.mark.parametrize('sampled', [
    Sampled('unet'), Sampled('unet', respacing='5,3,3'),
    Sampled('unet', 'classifier', 2.5, 'ddim10', 'ddim'), Sampled('unet', 'classifier'),
    Sampled('unet', 'classifier', 0.5, '8', upsample='upsampler'),
    Sampled('unet', respacing='8', upsample='upsampler', upsample_respacing='ddim5',
            upsample_solver='ddim')])
def test_the_line_of_a_row_asks_for_the_same_job(tmp_path, monkeypatch, sampled):
  monkeypatch.chdir(tmp_path)
  tiny_models.unet(tmp_path / 'unet', num_classes=tiny_models.NUM_CLASSES)
  tiny_models.classifier(tmp_path / 'classifier')
  tiny_models.upsampler(tmp_path / 'upsampler')
  ours = reproduce.job(sampled, OPTIONS)
  assert _said(ours) == _said(sample._job(_read(sampled, OPTIONS)))
  assert (ours.base is None) == (sampled.upsample is None)
