"""What `adm status` reads from a job's folder."""

import re
import time

import numpy as np
import pytest

from adm_jax.cli.main import main
from adm_jax.errors import UsageError
from adm_jax.io import durations, heartbeats
from adm_jax.io.parts import Part
from adm_jax.sampling import shards, status


@pytest.fixture
def job(tmp_path):
  """20 images, of which 8 are there; one process is at work, another has gone."""
  folder = tmp_path / 'base'
  with shards.open_folder(folder, {'version': 2, 'num': 20}, 20, (2, 2, 1), None) as job:
    job.add(4, np.zeros((8, 2, 2, 1), np.uint8))
  with heartbeats.Heart(folder, Part(1, 2)) as gone:
    gone._stop.set()
    gone._thread.join()
    gone._write_lock.acquire()  # it says nothing any more
    path = folder / 'hosts' / '1-of-2.json'
    seen = heartbeats.read(folder)[0].seen
    path.write_text(path.read_text().replace(str(seen), str(seen - 1000)))
    gone._write_lock.release()
    gone._write = lambda: None
  with heartbeats.Heart(folder, Part(0, 2)) as heart:
    heart.made(4)
    time.sleep(0.05)
    heart.made(4)
    heart.say(making=(12, 16))
    yield job


def test_rate_time_to_go_and_who_was_last_seen_when(job, tmp_path):
  (tmp_path / 'job.json').write_text((job.folder / 'job.json').read_text())
  base, whole = status.of_folder(tmp_path)  # a base lies below what enlarges it
  assert (base.there, whole.there, base.joined) == (8, 0, False)
  assert 0 < base.rate <= 4 / 0.05
  line, first, second = base.text().splitlines()
  assert '8 of 20 images (40%), 1 process at work' in line and line.endswith(' to go')
  assert '0/2 on ' in first and '8 images made' in first
  assert re.search(r'at 12 to 15, seen \d s ago', first)
  assert '1/2 on ' in second and 'gone, seen 16 min ago' in second
  assert whole.text().endswith('0 of 20 images (0%), 0 processes at work; the same command goes on')


def test_a_file_of_a_process_that_nobody_can_read_is_passed_over(job):
  for name, content in (('3-of-4.json', '{'), ('2-of-4.json', '[]'), ('1-of-4.json', '{"a": 1}')):
    (job.folder / 'hosts' / name).write_text(content)
  assert [beat.index for beat in heartbeats.read(job.folder)] == [0, 1]


def test_a_check_reads_everything(job, capsys):
  assert main(['status', str(job.folder), '--check']) == 0
  assert 'all that is there is as it was written' in capsys.readouterr().out
  shard, = (job.folder / 'shards').iterdir()
  shard.write_bytes(bytes(31) + b'\1')
  assert main(['status', str(job.folder), '--check']) == 1
  assert f'{shard} has the checksum' in capsys.readouterr().out


def test_a_finished_job_is_checked_as_well(tmp_path, capsys):
  with shards.open_folder(tmp_path, {'version': 2, 'num': 4}, 4, (2, 2, 1), None) as job:
    job.add(0, np.zeros((4, 2, 2, 1), np.uint8))
    job.finish()
  assert main(['status', str(tmp_path), '--check']) == 0
  assert '4 of 4 images, joined in samples.npz\n' in capsys.readouterr().out
  content = bytearray(job.samples.read_bytes())
  content[content.index(b'\n', 60) + 3] ^= 1  # behind the header of arr_0
  job.samples.write_bytes(content)
  assert main(['status', str(tmp_path), '--check']) == 1
  assert 'arr_0 is cut short or damaged' in capsys.readouterr().out


@pytest.mark.parametrize('name, match', [('absent', 'no folder'), ('', 'no job of adm sample')])
def test_a_folder_without_a_job(tmp_path, name, match):
  with pytest.raises(UsageError, match=match):
    status.of_folder(tmp_path / name)


@pytest.mark.parametrize('seconds, words', [
    (12.4, '12 s'), (200, '3 min'), (7800, '2 h 10 min'), (28 * 3600 + 60 * 3600, '3 d 16 h')])
def test_durations(seconds, words):
  assert durations.words(seconds) == words
