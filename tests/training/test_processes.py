"""One run, on any devices and processes, however they end: the same numbers.

Everything here shares one run of two processes with four simulated devices each.
"""

import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import jax
import metric_lines
import numpy as np
import pytest
import simulated_devices
import ways

from adm_jax.weights import checkpoint_files, folders

TESTS = pathlib.Path(ways.__file__).parent
CLUSTER = TESTS.parent / 'launch' / 'local_cluster.sh'
HEARTBEAT = 8  # seconds; the commands' own is longer


def _environment(**more):
  path = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get('PYTHONPATH', '')])
  return {**os.environ, 'PYTHONPATH': path, 'JAX_PLATFORMS': 'cpu', **more}


class Cluster:
  """`adm train` on several processes, by default 2 x 4 devices; what they print is in `log`."""

  def __init__(self, workdir, *words, seconds_an_image=0.0, config=ways.__file__, processes=2,
               devices=4):
    self.workdir, self.log = workdir, workdir.with_name(f'{workdir.name}.log')
    with open(self.log, 'w') as log:
      self._script = subprocess.Popen(
          [CLUSTER, str(processes), str(devices), sys.executable, '-m', 'adm_jax.cli.main', 'train',
           '--config', str(config), '--workdir', str(workdir), '--config.fsdp=2', *words],
          env=_environment(WAYS_SECONDS_AN_IMAGE=str(seconds_an_image),
                           ADM_HEARTBEAT_SECONDS=str(HEARTBEAT)),
          stdout=log, stderr=subprocess.STDOUT)

  def wait_for(self, step: int) -> None:
    """Until a checkpoint of this step or a later one is whole."""
    while max(checkpoint_files.saved_steps(self.workdir), default=0) < step:
      assert self._script.poll() is None, self.log.read_text()
      time.sleep(0.05)

  def send(self, process: int, what: signal.Signals) -> None:
    pid = re.search(rf'process {process} has id (\d+)', self.log.read_text())[1]
    os.kill(int(pid), what)

  def code(self) -> int:
    return self._script.wait(timeout=240)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """The work directory of an undisturbed run, of which some steps are traced."""
  workdir = tmp_path_factory.mktemp('processes') / 'whole'
  cluster = Cluster(workdir, '--profile', '2:2')
  assert cluster.code() == 0, cluster.log.read_text()
  return workdir


@pytest.fixture(scope='module')
def found(finished, tmp_path_factory):
  """What `ways.py` finds, in one process with 8 devices."""
  out = tmp_path_factory.mktemp('ways') / 'ways.npz'
  result = subprocess.run(
      [sys.executable, ways.__file__, out, finished], text=True, capture_output=True,
      env=_environment(XLA_FLAGS=simulated_devices.flags(8)))
  assert result.returncode == 0, result.stderr
  return np.load(out)


def _state(workdir, step=ways.STEPS):
  """Every array of a checkpoint."""
  import orbax.checkpoint as ocp
  return ocp.PyTreeCheckpointer().restore(workdir / 'checkpoints' / str(step) / 'state', args=(
      ocp.args.PyTreeRestore(restore_args=jax.tree.map(
          lambda _: ocp.RestoreArgs(restore_type=np.ndarray), ocp.StandardCheckpointer().metadata(
              workdir / 'checkpoints' / str(step) / 'state').item_metadata.tree))))


def _params(found, way):
  prefix = f'{way}/params/'
  return {name.removeprefix(prefix): found[name] for name in found.files
          if name.startswith(prefix)}


def _same_run(losses, params, found):
  np.testing.assert_allclose(losses, found['1 device/losses'], rtol=1e-5)
  wanted = _params(found, '1 device')
  assert params.keys() == wanted.keys()
  for name, value in wanted.items():
    np.testing.assert_allclose(params[name], value, atol=1e-4, err_msg=name)


@pytest.mark.parametrize('way', [way for way in ways.WAYS if way != '1 device'])
def test_every_way_to_run_is_the_same_run(way, found):
  """Dropout included, over 20 steps: 8 devices by pmap and by jit on three meshes."""
  _same_run(found[f'{way}/losses'], _params(found, way), found)


def test_every_process_traces_its_devices_in_one_session(finished):
  session, = (finished / 'profile' / 'plugins' / 'profile').iterdir()
  assert sorted(path.name for path in session.glob('*.xplane.pb')) == [
      'process_0.xplane.pb', 'process_1.xplane.pb']


def test_fsdp_splits_weights_and_leaves_images_whole(found):
  """Each device computes its own images: weights are gathered, activations never exchanged."""
  assert found['exchanged/jit 1 x 8'] == 0


def test_a_sampler_with_fsdp_gathers_weights_when_they_are_used(found):
  """In every step; once before the loop, all of them would lie whole on each device."""
  before, inside = found['gathered/jit 1 x 8']
  assert before == 0 and inside > 0


def test_two_processes_are_the_same_run(finished, found):
  losses = [line['loss'] for line in metric_lines.read(finished)]
  params = folders.load(finished, weights='params', config=ways.get_config()).params
  _same_run(losses, ways.flat(params), found)


@pytest.mark.parametrize('way', ['1 device', 'jit 8 x 1', 'jit 1 x 8'])
def test_a_checkpoint_of_two_processes_goes_on_anywhere(way, found):
  """With and without fsdp, each array lies where the new mesh wants it, bit by bit the same."""
  assert found[f'restored/{way}']


def test_a_run_goes_on_with_fewer_and_more_processes(finished, found, tmp_path):
  """2 -> 1 -> 4: state and data position are any number's; the run is the undisturbed one."""
  workdir = pathlib.Path(shutil.copytree(finished, tmp_path / 'run'))
  for step in (15, 20):  # as it was after 10 steps, and some lines of metrics more
    shutil.rmtree(workdir / 'checkpoints' / str(step))
  for processes, devices, steps in ((1, 2, 15), (4, 2, ways.STEPS)):
    cluster = Cluster(workdir, f'--config.total_steps={steps}', processes=processes,
                      devices=devices)
    assert cluster.code() == 0, cluster.log.read_text()
    assert f'going on from step {steps - 5} of {steps}' in cluster.log.read_text()
  losses = [line['loss'] for line in metric_lines.read(workdir)]
  params = folders.load(workdir, weights='params', config=ways.get_config()).params
  _same_run(losses, ways.flat(params), found)


def test_a_run_that_loses_a_process_and_is_preempted_ends_as_an_undisturbed_one(finished, tmp_path):
  """kill -9 of one process ends the other in time; SIGTERM to one saves both. Both end with 75."""
  workdir, chance = tmp_path / 'run', random.Random(time.time_ns())
  cluster = Cluster(workdir, seconds_an_image=0.05)
  cluster.wait_for(5)
  time.sleep(chance.uniform(0, 1))
  killed = time.monotonic()
  cluster.send(chance.choice([0, 1]), signal.SIGKILL)
  assert cluster.code() == 75, cluster.log.read_text()
  assert time.monotonic() - killed < HEARTBEAT + 15
  assert 'adm: another process of this run is gone' in cluster.log.read_text()

  before = max(checkpoint_files.saved_steps(workdir))
  assert before < ways.STEPS, 'it was over before it could be killed'
  cluster = Cluster(workdir, seconds_an_image=0.05)
  while f'step {before + 1},' not in cluster.log.read_text():
    time.sleep(0.05)
  cluster.send(chance.choice([0, 1]), signal.SIGTERM)
  assert cluster.code() == 75, cluster.log.read_text()
  assert 'adm: stopped by SIGTERM after step' in cluster.log.read_text()

  assert before < max(checkpoint_files.saved_steps(workdir)) < ways.STEPS
  cluster = Cluster(workdir)
  assert cluster.code() == 0, cluster.log.read_text()
  assert (workdir / 'metrics.jsonl').read_bytes() == (finished / 'metrics.jsonl').read_bytes()
  jax.tree.map(np.testing.assert_array_equal, _state(workdir), _state(finished))


# The second process is killed when it is about to read.
LOST = '''
import signal
from adm_jax.training import checkpoints

restore = checkpoints.Checkpoints.restore
def lost(*arguments):
  if jax.process_index() == 1:
    os.kill(os.getpid(), signal.SIGKILL)
  return restore(*arguments)

checkpoints.Checkpoints.restore = lost
'''


def test_a_process_lost_while_the_others_read_a_checkpoint_damages_nothing(finished, tmp_path):
  workdir = pathlib.Path(shutil.copytree(finished, tmp_path / 'run'))
  (tmp_path / 'lost.py').write_text(pathlib.Path(ways.__file__).read_text() + LOST)
  cluster = Cluster(workdir, '--config.total_steps=30', config=tmp_path / 'lost.py')
  assert cluster.code() == 75, cluster.log.read_text()
  log = cluster.log.read_text()
  assert 'adm: another process of this run is gone' in log and 'cannot be read' not in log
  assert max(checkpoint_files.saved_steps(workdir)) == ways.STEPS
