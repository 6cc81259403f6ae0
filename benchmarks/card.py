"""The parts of card.sh: each a command with a time limit, whose tables go into OUT/card.md.

OUT/card.md is whole after every part, OUT/log.txt has all that they print, OUT/card.json what they
measured, and OUT/trace.tar.gz a trace for XProf and Perfetto. A part that fails, or has no time, is
a line in the first table; the others run.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Mapping, Sequence

from adm_jax.io import markdown
from adm_jax.io.files import written_whole

ROOT = pathlib.Path(__file__).resolve().parent.parent
_LEAST = 5  # seconds that a part must be left with to begin
_PROGRAMS = ('step', 'guided', 'training')


@dataclasses.dataclass(frozen=True)
class Variant:
  """A way to compile the same programs, to be compared with the one before all others.

  Attributes:
    name: what it does differently.
    environment: set for it, beside what is set.
    words: more options of `on_device.py`.
  """
  name: str
  environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
  words: tuple[str, ...] = ()


# What is switched, one thing at a time, on ADM-64 at batch 8. The first is what everyone gets; it
# comes last again, to show how far figures drift. A new switch is a new line.
VARIANTS = (
    Variant('as it is'),
    Variant('products not merged', {'XLA_FLAGS': '--xla_gpu_dot_merger_threshold_mb=0'}),
    Variant('convolutions in CUDA graphs',
            {'XLA_FLAGS': '--xla_gpu_enable_command_buffer=+CONVOLUTION'}),
    Variant('no CUDA graphs', {'XLA_FLAGS': '--xla_gpu_enable_command_buffer='}),
    Variant('attention by XLA', words=('--attention', 'xla', '--override='
                                       '--config.task.network.module.attention_implementation=xla')),
    Variant('remat none', words=('--override=--config.task.network.module.remat=none',)),
    Variant('as it is, again'),
)


@dataclasses.dataclass(frozen=True)
class Command:
  """`python WORDS`, with more set in its environment."""
  words: tuple[str, ...]
  environment: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def __str__(self) -> str:
    return ' '.join([*(f'{name}="{value}"' for name, value in self.environment.items()), 'python',
                     *self.words])

  def full_environment(self) -> dict[str, str]:
    """Flags and paths are put beside those of this process, all else in their place."""
    there = os.environ
    def joined(name, value):
      if name == 'XLA_FLAGS':
        return ' '.join(filter(None, (there.get(name), value)))
      if name == 'PYTHONPATH':
        return os.pathsep.join(filter(None, (value, there.get(name))))
      return value
    return {**there, **{name: joined(name, value) for name, value in self.environment.items()}}


@dataclasses.dataclass(frozen=True)
class Part:
  """Commands that run at the same time; what they print as tables goes into the report.

  Attributes:
    name: for --parts; parts of one name go together.
    title: of its table; those of one title have one table.
    seconds: after which what still runs is stopped.
    commands: what runs.
    row: what its rows begin with, in a table of several parts.
  """
  name: str
  title: str
  seconds: float
  commands: tuple[Command, ...]
  row: str | None = None


@dataclasses.dataclass(frozen=True)
class Outcome:
  """How a part ended.

  Attributes:
    said: 'done', with what there is no table of, or why not.
    seconds: that it took.
    output: what its commands printed, one after the other.
  """
  said: str
  seconds: float
  output: str = ''

  @property
  def tables(self) -> list[str]:
    """The lines of Markdown tables."""
    return [line for line in self.output.splitlines() if line.startswith('|')]

  @property
  def results(self) -> list:
    """What was printed as JSON."""
    return [json.loads(line) for line in self.output.splitlines() if line.startswith('{"')]


def parts(out: pathlib.Path, *, tiny: bool = False, before: Sequence[str] = ()) -> list[Part]:
  """All that is asked of a card, the most important first.

  Args:
    out: where the trace goes.
    tiny: of networks that any machine compiles in seconds.
    before: other checkouts of this repository, measured beside this one: a change that nothing
      switches is on here and off in the checkout of the commit before it.
  """
  small, large = ('tiny', 'tiny') if tiny else ('imagenet64', 'imagenet256')
  batches, rounds = (('2',), '1') if tiny else (('8', '1', '32'), '5')
  others = [Variant(pathlib.Path(folder).name, {'PYTHONPATH': folder}, ('--package', folder))
            for folder in before]
  variants = (VARIANTS[0], *others, *VARIANTS[1:])

  def ours(model, *programs, batches=batches, words=(), environment=()):
    return Command(('benchmarks/on_device.py', '--models', model, '--programs', *programs,
                    '--batch', *batches, '--rounds', rounds, *words), dict(environment))

  def switched(variant, *words):
    return ours(small, 'step', 'training', batches=batches[:1], words=(*variant.words, *words),
                environment=variant.environment)

  def peers(network):
    words = ('float32', '--no-compile') if tiny else ('bfloat16',)
    return Command(('benchmarks/step.py', '--networks', 'tiny' if tiny else network, '--batch',
                    *batches, '--rounds', rounds, '--dtype', *words),
                   {'XLA_PYTHON_CLIENT_MEM_FRACTION': '0.45'})  # PyTorch is in the same process

  golden = Command(('-m', 'pytest', '-q', '-p', 'no:cacheprovider', 'tests/models/test_golden.py',
                    *(('-k', 'halfwidth') if tiny else ())),
                   {'JAX_DEFAULT_MATMUL_PRECISION': 'highest'})  # else float32 would be TF32
  # The cores of a machine with a card compile many programs at once; what is timed below is in the
  # compilation cache then. Each process takes only the memory that it needs.
  compiled = [ours(model, program, words=['--compile-only'])
              for model in dict.fromkeys((small, large)) for program in _PROGRAMS]
  compiled += [switched(variant, '--compile-only') for variant in variants
               if variant.environment or variant.words]
  compiled = [dataclasses.replace(command, environment={
      **command.environment, 'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'}) for command in compiled]
  trace = ('--profile', str(out / 'trace'))
  found = [
      Part('golden', 'The published reference, in float32', 90, (golden,)),
      Part('compile', 'Compiled first, all at once', 200, tuple(compiled)),
      *(Part('adm64', 'ADM-64, our programs', 60, (ours(small, program, words=words),))
        for program, words in zip(_PROGRAMS, (trace, (), ()))),
      Part('peers64', 'One step beside PyTorch: ADM-64', 100, (peers('adm64'),)),
      *(Part('adm256', 'ADM-256, our programs', 60, (ours(large, program),))
        for program in _PROGRAMS),
      *(Part('switches', 'Switches, one at a time: ADM-64, batch 8', 45, (switched(variant),),
             variant.name) for variant in variants),
      Part('peers256', 'One step beside PyTorch: ADM-256', 200, (peers('adm256'),)),
  ]
  # Any machine may be a slow one.
  return [dataclasses.replace(part, seconds=4 * part.seconds) for part in found] if tiny else found


def run(part: Part, seconds: float) -> Outcome:
  """Runs the commands of a part at the same time, for at most so many seconds."""
  begin = time.monotonic()
  with tempfile.TemporaryDirectory() as folder:
    files = [open(pathlib.Path(folder, str(i)), 'w+') for i in range(len(part.commands))]
    # In groups of their own, so that workers that they start end with them.
    processes = [subprocess.Popen(
        [sys.executable, *command.words], cwd=ROOT, env=command.full_environment(), stdout=file,
        stderr=subprocess.STDOUT, start_new_session=True)
                 for command, file in zip(part.commands, files)]
    late = False
    for process in processes:
      try:
        process.wait(max(0.0, begin + seconds - time.monotonic()))
      except subprocess.TimeoutExpired:
        late = True
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    outputs = []
    for file in files:
      with file:
        file.seek(0)
        outputs.append(file.read())
  return Outcome(_said(part, processes, outputs, late, seconds), time.monotonic() - begin,
                 '\n'.join(outputs))


def _said(part: Part, processes: Sequence[subprocess.Popen], outputs: Sequence[str], late: bool,
          seconds: float) -> str:
  if late:
    return f'stopped after {seconds:.0f} s: what it had printed is below'
  for process, output in zip(processes, outputs):
    if process.returncode:
      lines = [line for line in output.splitlines() if line.strip()]
      return f'failed with {process.returncode}: {lines[-1][:200] if lines else "(no output)"}'
  if part.name == 'golden':
    return f'done: {outputs[0].strip().splitlines()[-1]}'
  return 'done'


def report(ended: Sequence[tuple[Part, Outcome]]) -> str:
  """All tables, as Markdown."""
  told = {name: value for _, outcome in ended for result in outcome.results
          for name, value in result.items() if name in ('device', 'jax', 'torch') and value}
  lines = ['# ' + ', '.join(f'{name} {value}' for name, value in told.items()), '', markdown.table(
      ('part', 'row', 'seconds', 'how it ended'),
      [(part.name, part.row or '', f'{outcome.seconds:.0f}', outcome.said)
       for part, outcome in ended])]
  for title in dict.fromkeys(part.title for part, _ in ended):
    rows = []
    for part, outcome in ended:
      if part.title == title and outcome.tables:
        head, rule, *found = outcome.tables
        first = '' if part.row is None else f'| {part.row} '
        named = ('| | ' + head[2:], '| --- ' + rule) if first else (head, rule)
        rows += [*(named if not rows else ()), *(first + line for line in found)]
    if rows:
      lines += ['', f'## {title}', '', *rows]
  return '\n'.join(lines) + '\n'


def write(out: pathlib.Path, ended: Sequence[tuple[Part, Outcome]]) -> None:
  with written_whole(out / 'card.md') as file:
    file.write_text(report(ended))
  with written_whole(out / 'card.json') as file:
    file.write_text(json.dumps([
        {'part': part.name, 'row': part.row, 'commands': list(map(str, part.commands)),
         'said': outcome.said, 'seconds': outcome.seconds, 'results': outcome.results}
        for part, outcome in ended], indent=1))


def run_all(chosen: Sequence[Part], out: pathlib.Path, seconds: float) -> int:
  """Runs parts one after the other within so many seconds; 1 if none went through, else 0."""
  end, ended = time.monotonic() + seconds, []
  for part in chosen:
    left = min(part.seconds, end - time.monotonic())
    if left < _LEAST:
      outcome = Outcome(f'no time was left: --parts {part.name}', 0.0)
    else:
      outcome = run(part, left)
    ended.append((part, outcome))
    write(out, ended)
    with open(out / 'log.txt', 'a') as log:
      log.write('\n'.join(['', *(f'$ {command}' for command in part.commands), outcome.output]))
    print(f'{part.name} {part.row or ""}: {outcome.said} ({outcome.seconds:.0f} s)', flush=True)
  if (out / 'trace').is_dir():
    shutil.make_archive(str(out / 'trace'), 'gztar', out / 'trace')
  print(f'tables: {out / "card.md"}')
  return 0 if any(outcome.said.startswith('done') for _, outcome in ended) else 1


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('out', type=pathlib.Path)
  parser.add_argument('--tiny', action='store_true', help='networks for any machine')
  parser.add_argument('--parts', nargs='+', metavar='NAME', help='only these')
  parser.add_argument('--before', nargs='+', default=[], metavar='CHECKOUT', type=os.path.abspath,
                      help='other checkouts, whose package is measured beside this one')
  parser.add_argument('--seconds', type=float, default=570, help='in all; default: 570')
  arguments = parser.parse_args()
  out = arguments.out.absolute()
  found = parts(out, tiny=arguments.tiny, before=arguments.before)
  names = list(dict.fromkeys(part.name for part in found))
  unknown = [name for name in arguments.parts or [] if name not in names]
  if unknown:
    parser.error(f'--parts {" ".join(unknown)}: give some of {", ".join(names)}')
  out.mkdir(parents=True, exist_ok=True)
  return run_all([part for part in found if arguments.parts is None
                  or part.name in arguments.parts], out, arguments.seconds)


if __name__ == '__main__':
  sys.exit(main())
