"""The package's own programs, timed on this machine's devices: sampling steps and training steps.

  python benchmarks/on_device.py --models imagenet64 --batch 8 1 32           # a GPU or a TPU
  python benchmarks/on_device.py --models tiny --batch 4 --profile runs/trace # anywhere

'step' and 'guided' are one step of a sampler's scan, without and with the model's classifier;
'training' is the step of the model's config: loss, gradient, AdamW, averages. Weights are random,
which costs as much as trained ones. All programs are compiled first, some at a time; then each runs
alone, calls following each other as in a run, and medians are printed. Memory is what the compiler
says of the program: what it is given, and what it holds in between.
"""

import argparse
import concurrent.futures
import dataclasses
import functools
import json
import pathlib
import statistics
import time
from typing import Any, Callable

import jax
import jax.numpy as jnp
import numpy as np

import adm_jax
from adm_jax import config as config_lib
from adm_jax.data.sources import ArraySource
from adm_jax.devices import chips, compilation_cache, flops, sharding
from adm_jax.devices.profile import Profile
from adm_jax.errors import one_line
from adm_jax.sampling import courses, guidance, pipeline
from adm_jax.sampling import sampler as sampling
from adm_jax.training.flops import of_step
from adm_jax.weights import pretrained
from adm_jax.weights.folders import Trained

PROGRAMS = ('step', 'guided', 'training')
COLUMNS = ('model', 'program', 'batch', 'ms', 'images/s', 'of peak', 'given, GB', 'between, GB',
           'compiled in, s')
_SCAN = 10  # steps of the sampler, so that what is once in a call hardly counts
_SECONDS = 0.3  # of a round of calls
# Configs of networks, made small enough to compile in seconds.
_TINY = {'tiny': 'digits_unet', 'tiny-classifier': 'digits_classifier'}
_ONE_LEVEL = ['--config.task.network.module.channel_mult=(1,)',
              '--config.task.network.module.attention_resolutions=()']


@dataclasses.dataclass(frozen=True)
class Program:
  """A program that is traced, and can be compiled by any thread.

  Attributes:
    lowered: it has `compile`.
    run: (what that returned) -> a function that starts a call, and returns arrays to wait for.
    steps: of each call.
    flops: of a step.
  """
  lowered: Any
  run: Callable[[Any], Callable[[], Any]]
  steps: int
  flops: float


def config_of(name: str, overrides: list[str] = ()) -> config_lib.ConfigDict:
  """The config called `name`, or that of a tiny network."""
  small = _ONE_LEVEL if name in _TINY else []
  return config_lib.load(_TINY.get(name, name), [*small, *overrides])


def outline(name: str) -> Trained:
  """A network by its name, with the shapes of its weights."""
  if name not in _TINY:
    return pretrained.outline(name)
  network = config_lib.build(config_of(name).task.network)
  return Trained(network, network.abstract_params())


def with_weights(trained: Trained) -> Trained:
  """Random weights, none zero, of the size that keeps activations as they are.

  They repeat: drawing half a billion numbers would take longer than what is measured.
  """
  drawn = np.random.default_rng(0).standard_normal(1_000_003, np.float32)
  def fill(leaf):
    fan_in = max(1, int(np.prod(leaf.shape[:-1])))
    return np.resize(drawn, leaf.shape) / np.float32(np.sqrt(fan_in))
  return dataclasses.replace(trained, params=jax.tree.map(fill, trained.params))


def sampling_program(name: str, batch: int, dtype: str, attention: str | None,
                     guided: bool) -> Program:
  """The scan of `_SCAN` ancestral steps."""
  def load(name):
    trained = _weights(name)
    return trained if attention is None else dataclasses.replace(
        trained, network=trained.network.having(attention_implementation=attention))
  guides = (guidance.ByClassifier(load(f'{name}-classifier')),) if guided else ()
  adm = pipeline.load(load(name), guidance=guides, dtype=dtype,
                      steps=courses.Course(str(_SCAN)))
  sampler = adm.sampler
  labels = None if adm.num_classes is None else jnp.arange(batch) % adm.num_classes
  keys, labels = sharding.place_batch(
      (sampling.image_keys(jax.random.key(0), np.arange(batch)), labels), sampler.mesh)
  x = sampling.initial_noise(keys, sampler.shape)
  carry = sharding.place_batch((x, sampling.remembering_x0(sampler.solver).init(x)), sampler.mesh)
  given = adm.params, carry, sampler.steps, keys, labels

  def run(compiled):
    state = [carry]
    def call():
      state[0] = compiled(adm.params, state[0], *given[2:])
      return state[0]
    return call
  return Program(jax.jit(sampler.advance, donate_argnums=1).lower(*given), run, _SCAN,
                 flops.count(sampler.advance, *given) / _SCAN)


@functools.cache
def _weights(name: str) -> Trained:
  return with_weights(outline(name))


def training_program(name: str, batch: int, overrides: list[str]) -> Program:
  """The training step of the config called `name`, on random images."""
  config = config_of(name, [f'--config.batch_size={batch}', *overrides])
  network = config_lib.build(config.task.network)
  images = np.random.default_rng(0).integers(0, 256, (batch, *network.image_shape), np.uint8)
  labels = np.arange(batch, dtype=np.int32) % (network.num_classes or 1)
  config.data = config_lib.call(
      ArraySource, name='random', images=images, labels=labels,
      class_names=tuple(map(str, range(network.num_classes or 1))))
  run = config_lib.build(config)
  trainer = run.trainer()
  placed, key = trainer.place({'image': images, 'label': labels}), run.step_key()

  def start(compiled):
    state = [trainer.init()]
    def call():
      state[0], _ = compiled(state[0], placed, key, trainer.frozen)
      return state[0]
    return call
  return Program(trainer.step.lower(trainer.shapes, placed, key, trainer.frozen), start, 1,
                 of_step(run.task, batch))


def compiled(program: Program) -> tuple[Any, float]:
  """(the compiled program, seconds that it took)."""
  begin = time.perf_counter()
  return program.lowered.compile(), time.perf_counter() - begin


def measure(call: Callable[[], Any], rounds: int, profile: Profile) -> float:
  """Seconds of a call, the median of rounds of calls that follow each other."""
  def several(count):
    begin = time.perf_counter()
    for _ in range(count):
      result = call()
    jax.block_until_ready(result)
    return (time.perf_counter() - begin) / count
  several(1)
  count = max(1, round(_SECONDS / several(2)))
  seconds = statistics.median(several(count) for _ in range(rounds))
  with profile:
    for _ in range(3):
      profile.begin()
      profile.end(call())
  return seconds


def row(name, what, batch, program, executable, took, seconds) -> dict:
  """All that is known of one program, by column; what is not known is None."""
  step, memory = seconds / program.steps, executable.memory_analysis()
  peak = chips.peak(jax.devices()[0].device_kind)
  return dict(zip(COLUMNS, (
      name, what, batch, 1e3 * step, batch / step,
      peak and program.flops / step / peak / jax.device_count(),
      memory and memory.argument_size_in_bytes / 1e9, memory and memory.temp_size_in_bytes / 1e9,
      took), strict=True))


def cell(column: str, value: Any) -> str:
  if value is None:
    return ''
  if column == 'of peak':
    return f'{value:.0%}'
  return f'{value:.3g}' if isinstance(value, float) else str(value)


def main():
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--models', nargs='+', default=['tiny'],
                      help='published names, as imagenet64, or tiny')
  parser.add_argument('--programs', nargs='+', choices=PROGRAMS, default=list(PROGRAMS))
  parser.add_argument('--batch', nargs='+', type=int, default=[8])
  parser.add_argument('--dtype', default=pipeline.default_dtype(),
                      help='of sampling; the training step has its config\'s')
  parser.add_argument('--attention', help="another implementation in sampling, as 'xla'")
  parser.add_argument('--override', action='append', default=[], metavar='--config.KEY=VALUE',
                      help='of training: --override=--config.task.network.module.remat=none')
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--threads', type=int, default=4, help='that compile at the same time')
  parser.add_argument('--compile-only', action='store_true',
                      help='for another process, which finds it in the compilation cache')
  parser.add_argument('--package', metavar='CHECKOUT',
                      help='fail unless the package comes from there, as PYTHONPATH asked')
  parser.add_argument('--profile', metavar='DIR', help='trace three calls of the first program')
  arguments = parser.parse_args()
  found = pathlib.Path(adm_jax.__file__).resolve().parents[1]
  if arguments.package and pathlib.Path(arguments.package).resolve() != found:
    raise SystemExit(f'the package comes from {found}, not from {arguments.package}')
  compilation_cache.use()
  asked = [(name, what, batch) for name in arguments.models for what in arguments.programs
           for batch in arguments.batch]
  programs, rows = {}, []
  with concurrent.futures.ThreadPoolExecutor(arguments.threads) as pool:
    for name, what, batch in asked:
      program = (training_program(name, batch, arguments.override) if what == 'training' else
                 sampling_program(name, batch, arguments.dtype, arguments.attention,
                                  what == 'guided'))
      programs[name, what, batch] = program, pool.submit(compiled, program)
  if arguments.compile_only:
    for key, (_, future) in programs.items():
      print(f'{" ".join(map(str, key))}: {future.exception() or future.result()[1]}', flush=True)
    return
  print(f'| {" | ".join(COLUMNS)} |\n{"| --- " * len(COLUMNS)}|', flush=True)
  traced = arguments.profile
  for key in asked:
    program, future = programs.pop(key)  # its arrays go with it
    try:
      executable, took = future.result()
      profile = Profile(0, 3 if traced else 0, traced or '.', what='call')
      seconds = measure(program.run(executable), arguments.rounds, profile)
    except jax.errors.JaxRuntimeError as error:  # as where memory ends: the others still run
      print(f'| {" | ".join(map(str, key))} | {one_line(error, 120).replace("|", "/")} '
            f'{"| " * (len(COLUMNS) - 4)}|', flush=True)
      rows.append({**dict(zip(COLUMNS, key)), 'error': one_line(error)})
      continue
    traced = None
    rows.append(row(*key, program, executable, took, seconds))
    print(f'| {" | ".join(cell(*pair) for pair in rows[-1].items())} |', flush=True)
    # In the JSON alone: the largest so far, of all programs of this process.
    rows[-1]['peak_bytes_in_use'] = (jax.devices()[0].memory_stats() or {}).get('peak_bytes_in_use')
  print(json.dumps({'device': jax.devices()[0].device_kind, 'devices': jax.device_count(),
                    'jax': jax.__version__, 'rows': rows}))


if __name__ == '__main__':
  main()
