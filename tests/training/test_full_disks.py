"""Training on a disk without room says in one line which file has none, and ends at once."""

import os
import pathlib
import subprocess
import sys
import time

import pytest
import tiny

TESTS = pathlib.Path(tiny.__file__).parent
SECONDS = 10
CONFIG = '''
import tiny
from adm_jax.config import call
from adm_jax.training.grids import Grid

def get_config():
  return tiny.get_config(total_steps=400, grid=call(Grid, num=4, respacing='2'))
'''


@pytest.fixture
def disk(tmp_path):
  """disk(options) mounts one, in memory."""
  mounted = []

  def mount(options):
    folder = tmp_path / 'disk'
    folder.mkdir()
    try:
      result = subprocess.run(['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', folder],
                              capture_output=True)
    except FileNotFoundError:
      result = None
    if result is None or result.returncode:
      pytest.skip('may not mount')
    mounted.append(folder)
    return folder
  yield mount
  for folder in mounted:
    subprocess.run(['umount', '-l', folder], check=True)


FIRST = ('checkpoints/4',)
EITHER = ('checkpoints/4', 'samples')  # written at the same time: no telling which ends first


@pytest.mark.parametrize('options, sample_every, code, named', [
    ('size=20m,nr_inodes=3', 0, 2, ('config.json',)),
    ('size=20m,nr_inodes=12', 0, 1, FIRST),  # folders of a first checkpoint
    ('size=20m,nr_inodes=25', 4, 1, EITHER),  # and of its arrays, while a picture is drawn
    ('size=20k', 4, 1, EITHER), ('size=3m', 4, 1, EITHER), ('size=3m', 0, 1, FIRST),
    ('size=6m', 0, 1, ('checkpoints/8',))])  # a later checkpoint, whose arrays all fail
def test_a_run_without_room_says_one_line_and_ends(tmp_path, disk, options, sample_every, code,
                                                   named):
  workdir, log = disk(options) / 'run', tmp_path / 'log'
  (tmp_path / 'config.py').write_text(CONFIG)
  with open(log, 'w') as file:
    process = subprocess.Popen(
        [sys.executable, '-m', 'adm_jax.cli.main', 'train', '--config', tmp_path / 'config.py',
         '--workdir', workdir, f'--config.sample_every={sample_every}'], stdout=file, stderr=file,
        env={**os.environ, 'PYTHONPATH': f'{TESTS.parent}{os.pathsep}{TESTS}'})
  try:
    while process.poll() is None and 'adm: ' not in log.read_text():
      time.sleep(0.05)
    assert process.wait(SECONDS) == code, log.read_text()
  finally:
    process.kill()
  lines = [line for line in log.read_text().splitlines()
           if ' parameters, ' not in line and ' step ' not in line[:20]]
  assert len(lines) == 1, lines
  assert lines[0].startswith('adm: '), lines
  assert any(f'No space left on device: {workdir}/{name}' in lines[0] for name in named), lines
