"""A trace of some steps of a run, for XProf and Perfetto.

    with Profile(10, 5, folder) as profile:
      for number in ...:
        profile.begin(number)
        result = step(...)
        profile.end(result)
    print(profile.report())
"""

import pathlib
import tempfile

import jax

from adm_jax.errors import UsageError
from adm_jax.io import files

FOLDER = 'profile'  # in a run's folder
# Where both programs look for sessions, below the folder that they are given.
_SESSIONS = pathlib.Path('plugins', 'profile')
_KINDS = ('.xplane.pb', '.trace.json.gz')  # for XProf and for Perfetto


class Profile:
  """Traces `count` steps after the first `start` of this process; use it as a context.

  Each process traces its own devices, and all write into one session, which XProf shows together:
  FOLDER/profile/plugins/profile/STEP/process_0.xplane.pb, for XProf, and .trace.json.gz, for
  Perfetto, with the number of each step. If the steps end too early, those that there were are
  written; if they fail, nothing is.
  """

  def __init__(self, start: int, count: int, folder: str | pathlib.Path, *, what: str = 'step'):
    """Nothing is traced if `count` is 0.

    Args:
      start: how many steps go before; the first one compiles.
      count: how many are traced.
      folder: of the run, or an address in a bucket.
      what: the steps are called in the trace.

    Raises:
      UsageError: a number below 0.
    """
    for name, value in (('start', start), ('count', count)):
      if value < 0:
        raise UsageError(f'{name}={value}: give 0 or more')
    self._start, self._stop, self._what = start, start + count, what
    self._folder = files.folder(folder) / FOLDER
    self._seen = 0
    self._temporary, self._annotation = None, None
    self._numbers: list[int] = []  # of the steps in the trace

  def __enter__(self) -> 'Profile':
    return self

  def __exit__(self, kind, error, traceback) -> None:
    if self._temporary is not None:
      self._close(keep=kind is None)

  def begin(self, number: int | None = None) -> None:
    """A step begins; its number is shown in the trace, by default how many there were, and one."""
    if self._seen == self._start < self._stop:
      self._temporary = tempfile.TemporaryDirectory(prefix='adm_profile_')
      options = jax.profiler.ProfileOptions()
      options.python_tracer_level = 0  # calls of Python functions cost more than what they show
      jax.profiler.start_trace(self._temporary.name, profiler_options=options)
    if self._temporary is not None:
      self._numbers.append(self._seen + 1 if number is None else number)
      self._annotation = jax.profiler.StepTraceAnnotation(self._what, step_num=self._numbers[-1])
      self._annotation.__enter__()

  def end(self, result: object = None) -> None:
    """The step is given to the devices, and ends in arrays, for which the trace waits."""
    self._seen += 1
    # Before the first step, so that devices have nothing else to do.
    if self._start < self._stop and self._seen in (self._start, self._stop):
      jax.block_until_ready(result)
    if self._temporary is not None:
      self._leave()
      if self._seen == self._stop:
        self._close(keep=True)

  def report(self) -> str:
    """Where the trace is and how to look at it, or why there is none."""
    if not self._numbers:
      seen = f'{self._seen} {self._what}' + ('' if self._seen == 1 else 's')
      return (f'no trace: {seen} ran, and the trace was to begin after {self._start}: give a '
              'smaller START')
    return (f'trace of {self._what} {self._numbers[0]} to {self._numbers[-1]}: {self._folder}  '
            '(xprof FOLDER shows it; so does ui.perfetto.dev its .trace.json.gz)')

  def _leave(self) -> None:
    if self._annotation is not None:
      self._annotation.__exit__(None, None, None)
      self._annotation = None

  def _close(self, keep: bool) -> None:
    self._leave()
    jax.profiler.stop_trace()
    with self._temporary as written:
      self._temporary = None
      if keep:
        self._copy(pathlib.Path(written))

  def _copy(self, written: pathlib.Path) -> None:
    """Copies a session, from where JAX can write it to where it belongs, maybe a bucket."""
    session = self._folder / _SESSIONS / f'{self._what}_{self._numbers[0]:07d}'.replace(' ', '_')
    with files.naming(session):
      session.mkdir(parents=True, exist_ok=True)
    for kind in _KINDS:
      for path in written.glob(f'{_SESSIONS}/*/*{kind}'):  # after a host's name
        with files.written_whole(session / f'process_{jax.process_index()}{kind}') as part:
          part.write_bytes(path.read_bytes())
