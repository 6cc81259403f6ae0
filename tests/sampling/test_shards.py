"""Jobs: stopped anywhere, the same command ends with the same bytes."""

import subprocess
import sys
import types
from contextlib import nullcontext

import numpy as np
import pytest

from adm_jax.errors import UsageError
from adm_jax.sampling import shards

NUM, SHAPE = 23, (2, 3, 1)
IMAGES = np.random.default_rng(0).integers(0, 256, (NUM, *SHAPE), np.uint8)
LABELS = np.arange(NUM, dtype=np.int32)


def _open(folder, description=None, num=NUM):
  description = description or {'version': 2, 'seed': 0}
  return shards.open_folder(folder, description, num, SHAPE, LABELS[:num])


def _batches(begin, size, most=None):
  """Batches from image `begin` on; raises after `most`, as a killed process would end."""
  for count, first in enumerate(range(begin, NUM, size)):
    if count == most:
      raise KeyboardInterrupt
    yield IMAGES[first:first + size]


@pytest.fixture
def small_shards(monkeypatch):
  monkeypatch.setattr(shards, '_IMAGES_PER_SHARD', 4)


def _whole(folder):
  with _open(folder) as job:
    job.fill(0, _batches(0, NUM))
    return job.finish().read_bytes()


@pytest.mark.usefixtures('small_shards')
@pytest.mark.parametrize('size', [1, 2, 5, 23])
def test_interrupted_after_every_batch_it_ends_with_the_bytes_of_one_go(tmp_path, size):
  for _ in range(NUM + 1):
    with _open(tmp_path / 'a') as job:
      begin = job.done()
      assert begin <= NUM
      if begin == NUM:
        break
      try:
        job.fill(begin, _batches(begin, size, most=1))
      except KeyboardInterrupt:
        pass
  with _open(tmp_path / 'a') as job:
    assert job.finish().read_bytes() == _whole(tmp_path / 'b')
    np.testing.assert_array_equal(job.images(), IMAGES)
  with np.load(tmp_path / 'a' / 'samples.npz') as arrays:
    np.testing.assert_array_equal(arrays['arr_0'], IMAGES)
    np.testing.assert_array_equal(arrays['arr_1'], LABELS)
    assert arrays['arr_1'].dtype == np.int64
  assert sorted(path.name for path in (tmp_path / 'a').iterdir()) == ['job.json', 'samples.npz']


@pytest.mark.usefixtures('small_shards')
def test_a_torn_shard_does_not_count_and_what_follows_it_does(tmp_path):
  with _open(tmp_path / 'a') as job:
    job.fill(0, _batches(0, 5))
    parts = sorted((tmp_path / 'a' / 'shards').iterdir())
    assert job.done() == NUM and len(parts) == 5
    parts[2].write_bytes(parts[2].read_bytes()[:-1])
  with _open(tmp_path / 'a') as job:
    assert job.missing() == [(10, 15)]
    parts[0].unlink()
    assert job.missing() == [(0, 5), (10, 15)] and job.done() == 13
    for begin, end in job.missing():
      job.fill(begin, [IMAGES[begin:end]])
    assert job.done() == NUM and job.finish().read_bytes() == _whole(tmp_path / 'whole')


@pytest.mark.usefixtures('small_shards')
def test_shards_of_other_batch_sizes_overlap_and_count_once(tmp_path):
  with _open(tmp_path / 'a') as job:
    job.fill(4, [IMAGES[4:10]])
    job.fill(0, [IMAGES[:6]])
    assert job.missing() == [(10, NUM)]
    job.fill(8, [IMAGES[8:]])
    assert job.finish().read_bytes() == _whole(tmp_path / 'b')


def test_a_finished_job_stays(tmp_path):
  whole = _whole(tmp_path)
  with _open(tmp_path) as job:
    assert job.done() == NUM and job.finish().read_bytes() == whole


def test_another_job_or_a_strangers_folder_is_left_alone(tmp_path):
  _whole(tmp_path / 'a')
  def contents():
    return {path: path.read_bytes() for path in sorted(tmp_path.rglob('*')) if path.is_file()}
  (tmp_path / 'b').mkdir()
  (tmp_path / 'b' / 'thesis.tex').write_text('mine')
  before = contents()
  with pytest.raises(UsageError, match='another job.*seed: 0 before, 1 now'), \
      _open(tmp_path / 'a', {'version': 2, 'seed': 1}):
    pass
  with pytest.raises(UsageError, match='neither empty nor a job'), _open(tmp_path / 'b'):
    pass
  with pytest.raises(UsageError, match='is a file'), _open(tmp_path / 'b' / 'thesis.tex'):
    pass
  assert contents() == before


def test_what_a_killed_process_had_begun_to_write_blocks_nothing(tmp_path):
  (tmp_path / '.job.part.json').write_text('{')
  _whole(tmp_path)


def test_a_model_may_be_called_by_another_path(tmp_path):
  with _open(tmp_path, {'version': 2, 'model': {'name': 'a', 'fingerprint': 1}}):
    pass
  with _open(tmp_path, {'version': 2, 'model': {'name': './a', 'fingerprint': 1}}):
    pass
  with pytest.raises(UsageError, match='another job'), \
      _open(tmp_path, {'version': 2, 'model': {'name': 'a', 'fingerprint': 2}}):
    pass


def test_a_churned_job_of_before_goes_on_and_now_keeps_its_scale_of_noise(tmp_path):
  """What the command line stored said it in its own words alone."""
  before = {'version': 2, 'solver': 'heun', 'churn': '1,0.05,50,1.003'}
  for folder, description in (('before', before), ('now', {**before, 'noise_scale': 1.003})):
    with _open(tmp_path / folder, description):
      pass
    with _open(tmp_path / folder, {**before, 'noise_scale': 1.003}):
      pass
  with pytest.raises(UsageError, match='noise_scale: 1.003 before, 3.0 now'), \
      _open(tmp_path / 'now', {**before, 'noise_scale': 3.0}):
    pass


def test_only_whole_shards_count_where_room_is_looked_for(tmp_path, monkeypatch):
  """Not what other processes are writing, nor what they remove while it is looked at."""
  with _open(tmp_path) as job:
    job.fill(0, [IMAGES[:5]])
  shard, = (tmp_path / 'shards').iterdir()
  (tmp_path / 'shards' / f'.{shard.stem}.part1of2.bin').write_bytes(bytes(100))
  (tmp_path / 'shards' / 'gone.bin').symlink_to(tmp_path / 'nowhere')
  needed = 2 * IMAGES.nbytes - IMAGES[:5].nbytes
  for free in (needed, needed - 1):
    monkeypatch.setattr(shards.shutil, 'disk_usage',
                        lambda root, free=free: types.SimpleNamespace(free=free))
    with pytest.raises(UsageError, match='on the way') if free < needed else nullcontext():
      shards.check_space(tmp_path, NUM, SHAPE)


@pytest.mark.parametrize('content', ['[1, 2]', 'text', ''])
def test_a_strangers_description_is_refused(tmp_path, content):
  (tmp_path / 'job.json').write_text(content)
  with pytest.raises(UsageError, match='was not written by this command'), _open(tmp_path):
    pass


def test_of_two_processes_that_start_at_once_one_is_let_in(tmp_path):
  """Each with another job, many times: never both."""
  script = '''
import sys, time, pathlib
from adm_jax.sampling import shards
from adm_jax.errors import UsageError
for i in range(30):
  folder = pathlib.Path(sys.argv[1]) / str(i)
  while time.time() % 0.05 > 0.002: pass
  try:
    with shards.open_folder(folder, {'version': 2, 'seed': int(sys.argv[2])}, 1, (1, 1, 1), None):
      (folder / f'in{sys.argv[2]}').touch()
      time.sleep(0.01)
  except UsageError:
    pass
'''
  both = [subprocess.Popen([sys.executable, '-c', script, tmp_path, seed]) for seed in '01']
  assert [process.wait(timeout=120) for process in both] == [0, 0]
  for folder in tmp_path.iterdir():
    assert len(list(folder.glob('in*'))) == 1, folder


def test_one_process_at_a_time(tmp_path):
  with _open(tmp_path):
    with pytest.raises(UsageError, match='another process'), _open(tmp_path):
      pass
  with _open(tmp_path):
    pass
