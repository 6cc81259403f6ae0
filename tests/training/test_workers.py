"""Worker processes and the memory that they share end with the run, however it ends."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time
import uuid

import pytest
import ways

TESTS = pathlib.Path(ways.__file__).parent
SECONDS = 5
CONFIG = '''
import tiny
from adm_jax.config import call
from adm_jax.data.loading import Loader

def get_config():
  return tiny.get_config(loader=call(Loader, num_workers=2), batch_size={rows},
                         total_steps=100000, log_every=10, save_every=100)
'''


def _processes(mark: str) -> list[int]:
  """All that were started, by whomever, with `mark` in their environment."""
  found = []
  for folder in pathlib.Path('/proc').glob('[0-9]*'):
    try:
      if mark.encode() in (folder / 'environ').read_bytes():
        found.append(int(folder.name))
    except OSError:  # it ended meanwhile, or is another user's
      pass
  return found


def _shared(rows: int) -> set[str]:
  """The files of batches of so many rows in shared memory, images and labels."""
  found = set()
  for path in pathlib.Path('/dev/shm').iterdir():
    try:
      if path.stat().st_size in (rows * 8 * 8, rows * 4):
        found.add(path.name)
    except OSError:
      pass
  return found


def _children(pid: int) -> list[int]:
  return [int(child) for child in
          pathlib.Path(f'/proc/{pid}/task/{pid}/children').read_text().split()]


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
@pytest.mark.parametrize('how, supervised, code, rows', [  # rows tell them and all others apart
    (signal.SIGKILL, False, -9, 41), (signal.SIGTERM, False, 75, 43),
    (signal.SIGINT, False, 130, 45), (signal.SIGKILL, True, -9, 47)], ids=str)
def test_nothing_outlives_a_run_with_workers(tmp_path, how, supervised, code, rows):
  """Of a supervised run, the child that trains is killed."""
  (tmp_path / 'config.py').write_text(CONFIG.format(rows=rows))
  before = _shared(rows)
  mark, chance, log = uuid.uuid4().hex, random.Random(code), tmp_path / 'log'
  joined = '--coordinator 127.0.0.1:{} --num-processes 1 --process 0'.format(
      chance.randint(20000, 30000)).split()
  with open(log, 'w') as file:
    process = subprocess.Popen(
        [sys.executable, '-m', 'adm_jax.cli.main', 'train', '--config', tmp_path / 'config.py',
         '--workdir', tmp_path / 'run', *(joined if supervised else [])], stdout=file, stderr=file,
        env={**os.environ, 'PYTHONPATH': f'{TESTS.parent}{os.pathsep}{TESTS}', 'MARK': mark})
  try:
    while 'step 10,' not in log.read_text():
      assert process.poll() is None, log.read_text()
      time.sleep(0.05)
    time.sleep(chance.uniform(0, 0.5))
    started = _processes(mark)
    assert len(started) >= 4 and _shared(rows) - before, 'it has workers, and a batch is on its way'
    os.kill(_children(process.pid)[0] if supervised else process.pid, how)
    assert process.wait(60) == code, log.read_text()
    ended = time.monotonic()
    while (_processes(mark) or _shared(rows) - before) and time.monotonic() - ended < SECONDS:
      time.sleep(0.05)
    assert not _processes(mark) and not _shared(rows) - before
    if how != signal.SIGKILL:
      assert 'leaked' not in log.read_text()  # Python's word where it had to tidy up
  finally:
    for pid in _processes(mark):
      os.kill(pid, signal.SIGKILL)
