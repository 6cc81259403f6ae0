"""One run on several processes: how they find each other, agree, and end together."""

import contextlib
import ctypes
import importlib.util
import os
import pathlib
import re
import signal
import threading
from typing import Callable, Iterable, Iterator

import jax
import numpy as np

from adm_jax.errors import RESTART, PeerLost, Preempted, UsageError, one_line
from adm_jax.io import heartbeats, parts
from adm_jax.io.parts import Part

# The others end so long after one of them has vanished, if no broken connection tells them before.
HEARTBEAT_SECONDS = heartbeats.SECONDS
_GONE = ('another process of this run is gone ({}): start all of them again with the same command, '
         'and they go on from the last checkpoint')
# In what a device reports then; other errors, as those of a compiler, would come again.
_LOST = re.compile('UNAVAILABLE|ABORTED|CANCELLED|DEADLINE_EXCEEDED|Gloo|gloo|NCCL|[Cc]onnection|'
                   '[Ss]ocket|[Hh]eartbeat|[Pp]eer')
# The same from where Orbax fetches what all have agreed on, of whatever type it is there.
_COLLECTIVE = re.compile(r'(Gloo|NCCL) \w+ failed')
# How far apart processes may end.
_SHUTDOWN_SECONDS = 120
_MEETING_SECONDS = 7 * 24 * 3600
_PR_SET_PDEATHSIG = 1  # of Linux


def join(coordinator: str | None = None, num_processes: int | None = None,
         process: int | None = None) -> None:
  """Joins the processes of this run; to be called before anything else touches a device.

  On TPU slices and under Slurm they find each other; elsewhere the arguments say where they are.
  Without either, this process is the only one.

  Args:
    coordinator: HOST:PORT on which process 0 listens.
    num_processes: how many there are.
    process: which one this is, from 0.

  Raises:
    UsageError: arguments that cannot be, or the processes do not find each other.
  """
  given = _are_given(coordinator, num_processes, process)
  if not given and not _in_cluster():
    return
  _supervised()
  try:
    jax.distributed.initialize(coordinator, num_processes, process,
                               heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
                               shutdown_timeout_seconds=_SHUTDOWN_SECONDS)
  except (RuntimeError, ValueError) as error:
    raise UsageError('the processes of this run did not find each other '
                     f'({one_line(error, 160)}): check that all were started and reach '
                     f'{coordinator or "the first"}') from error


def _are_given(coordinator: str | None, num_processes: int | None, process: int | None) -> bool:
  """Whether the three options say where this process is; raises UsageError if they cannot be."""
  given = {'--coordinator': coordinator, '--num-processes': num_processes, '--process': process}
  missing = [name for name, value in given.items() if value is None]
  if 0 < len(missing) < len(given):
    raise UsageError(f'{" and ".join(missing)} missing: --coordinator HOST:PORT, --num-processes N '
                     'and --process I go together')
  if missing:
    return False
  if not 0 <= process < num_processes:
    raise UsageError(f'--process {process} of --num-processes {num_processes}: give one from 0 to '
                     f'{num_processes - 1}')
  if not coordinator.rpartition(':')[2].isdigit():
    raise UsageError(f'--coordinator {coordinator} has no port: give HOST:PORT')
  return True


def part(words: str | None = None, coordinator: str | None = None,
         num_processes: int | None = None, process: int | None = None) -> Part:
  """Which part of a job this process makes, where processes need no connection to each other.

  They are found as `join` finds them, but nothing is opened between them: one that vanishes is no
  matter to the others. To be called before anything else touches a device.

  Args:
    words: 'I/N'; by default they are found.
    coordinator: as of `join`; nobody listens there.
    num_processes: how many there are.
    process: which one this is, from 0.

  Raises:
    UsageError: arguments that cannot be.
  """
  given = _are_given(coordinator, num_processes, process)
  if words is not None:
    if given:
      raise UsageError(f'--part {words} and --process {process} both say which part this is: give '
                       'one')
    return parts.parse(words)
  if given:
    return Part(process, num_processes)
  if _in_slurm():
    if 'SLURM_LOCALID' in os.environ:  # as when JAX joins them: a task has one GPU
      devices = os.environ.get('JAX_LOCAL_DEVICE_IDS', os.environ['SLURM_LOCALID'])
      jax.config.update('jax_cuda_visible_devices', devices)
      jax.config.update('jax_rocm_visible_devices', devices)
    return Part(int(os.environ['SLURM_PROCID']), int(os.environ['SLURM_NTASKS']))
  # The hosts of a TPU slice know each other from their runtime; elsewhere this is the only one.
  return Part(jax.process_index(), jax.process_count()) if _has_tpu() else Part()


def sharing(size: int, coordinator: str | None = None, num_processes: int | None = None,
            process: int | None = None) -> tuple[Part, list[jax.Device]]:
  """`part`, where `size` processes at a time, neighbors, hold one copy of the weights together.

  All processes are joined, and if one vanishes, all end. To be called before anything else touches
  a device.

  Args:
    size: how many.
    coordinator: as of `join`.
    num_processes: how many there are in all.
    process: which one this is, from 0.

  Returns:
    (the part of these processes, their devices).

  Raises:
    UsageError: arguments that cannot be, or the processes do not find each other.
  """
  join(coordinator, num_processes, process)
  count, group = jax.process_count(), jax.process_index() // max(1, size)
  if size < 1 or count % size:
    fitting = ', '.join(str(n) for n in range(1, count + 1) if count % n == 0)
    raise UsageError(f'{size} processes at a time cannot share the weights where there are {count} '
                     f'in all: give one of {fitting}')
  return Part(group, count // size), [device for device in jax.devices()
                                      if device.process_index // size == group]


def _supervised() -> None:
  """Goes on in a child process, of which this one says why it ended.

  Once heartbeats are missed, a thread of JAX's calls abort(), whatever Python is waiting for. No
  handler of that signal may run Python, which could wait for itself; another process may. To be
  called before there are threads, which a fork would leave behind.
  """
  parent, child = os.getpid(), os.fork()
  if not child:
    # What kills the parent, even SIGKILL, kills the child.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # killed already
      os._exit(RESTART)
    return
  signal.signal(signal.SIGTERM, lambda number, _: os.kill(child, number))
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the child as well
  code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
  if code == -signal.SIGABRT:
    os.write(2, f'adm: {_GONE.format("the runtime says why above")}\n'.encode())
    os._exit(RESTART)
  if code < 0:  # it ends as the child did
    if -code != signal.SIGKILL:
      signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
  os._exit(code)


def _in_cluster() -> bool:
  """Whether JAX can find the other processes, if any, by itself."""
  return _in_slurm() or _has_tpu()


def _in_slurm() -> bool:
  # In a batch script of several tasks that runs without srun, there is one process and no list.
  return int(os.environ.get('SLURM_NTASKS', 1)) > 1 and 'SLURM_STEP_NODELIST' in os.environ


def _has_tpu() -> bool:
  return importlib.util.find_spec('libtpu') is not None and any(
      pathlib.Path(device).exists() for device in ('/dev/accel0', '/dev/vfio/0'))


def first() -> bool:
  """Whether this is the process that writes what all have in common."""
  return jax.process_index() == 0


def leads(devices: Iterable[jax.Device] | None) -> bool:
  """Whether this process is the first of those that have `devices`; None: of this one alone."""
  return devices is None or jax.process_index() == min(device.process_index for device in devices)


def by_first(work: Callable[[], None]) -> None:
  """Does `work` in the first process, while the others wait; where it fails, all fail."""
  mistake = None
  if first():
    try:
      work()
    except (UsageError, OSError) as error:
      mistake = error
  if jax.process_count() > 1:
    from jax.experimental import multihost_utils
    failed = multihost_utils.broadcast_one_to_all(np.asarray(mistake is not None))
    if failed and mistake is None:
      mistake = UsageError('process 0 refused to go on: its message says why')
  if mistake is not None:
    raise mistake


def meet(name: str) -> None:
  """Waits until all processes have come here, for hours if need be.

  A collective would time out where the others come much later; if they vanish, this one ends as in
  training, by its heartbeats.

  Args:
    name: of the place, met at once.
  """
  if jax.process_count() > 1:
    from orbax.checkpoint import multihost
    multihost.get_barrier_sync_fn()(key=name, timeout_ms=1000 * _MEETING_SECONDS)


@contextlib.contextmanager
def preemption() -> Iterator[Callable[[int], bool]]:
  """Gives asked(step): whether a SIGTERM, or Ctrl-C, asks this run to stop, after this step.

  After Ctrl-C, `KeyboardInterrupt` is raised at the end.

  All processes get the same answer at the same step, whichever of them was sent the signal.
  """
  if jax.process_count() > 1:
    from jax.experimental import multihost_utils
    yield multihost_utils.reached_preemption_sync_point  # JAX catches the signal
  elif threading.current_thread() is not threading.main_thread():
    yield lambda step: False  # where Python handles no signals
  else:
    received = []

    def receive(number, _):
      received.append(number)
      if number == signal.SIGINT:
        os.write(2, b'\nadm: stopping after this step; interrupt again to stop at once\n')
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, receive)
              for number in (signal.SIGTERM, signal.SIGINT)}
    try:
      yield lambda step: bool(received)
    finally:
      for number, handler in before.items():
        signal.signal(number, handler)
    if signal.SIGINT in received:  # the state is saved as for SIGTERM, but nobody is to start again
      raise KeyboardInterrupt


@contextlib.contextmanager
def stopped_by_sigterm() -> Iterator[None]:
  """Within it, SIGTERM raises `Preempted` where Python is, so that what is made is stored."""
  if threading.current_thread() is not threading.main_thread():
    yield  # where Python handles no signals
    return

  def stop(number, _):
    raise Preempted('stopped by SIGTERM: the same command goes on from what is stored')
  before = signal.signal(signal.SIGTERM, stop)
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def noticing_lost_peers() -> Iterator[None]:
  """Turns what devices report when another process has gone into `PeerLost`."""
  try:
    yield
  except Exception as error:
    if not is_of_lost_peer(error):
      raise
    raise PeerLost(_GONE.format(one_line(error, 160))) from error


def is_of_lost_peer(error: BaseException | None) -> bool:
  """Whether this, or what led to it, is how a device reports that another process has gone."""
  seen = []  # an error that one thread hands to another may come to be its own cause
  while error is not None and error not in seen and jax.process_count() > 1:
    of_device = isinstance(error, jax.errors.JaxRuntimeError)
    if (_LOST if of_device else _COLLECTIVE).search(str(error)):
      return True
    seen.append(error)
    error = error.__cause__ or error.__context__
  return False
