"""What compilers make of our programs, for devices that nobody here has; and two of them compared.

  python benchmarks/programs.py resblock:384-192@64 attention:384@32 --target h100 --gradient
  python benchmarks/programs.py step:imagenet64 training:imagenet64 --target h100 --json before.json
  python benchmarks/programs.py step:imagenet64 --target h100 --vs before.json
  python benchmarks/programs.py resblock:384-192@64 --python ../other/venv/bin/python --vs FILE.json

Programs: forward:MODEL, step:MODEL (one of a sampler's scan), guided:MODEL (the same with MODEL's
classifier) and training:CONFIG; blocks, which compile in seconds: resblock:IN-OUT@SIDE,
down:CHANNELS@SIDE, up:CHANNELS@SIDE, attention:CHANNELS@SIDE, norm:CHANNELS@SIDE.

Each is compiled ahead of time for one device, by a process of its own. Bytes are operands and
results of what is launched (`adm_jax.plan.kernels`), milliseconds are estimated
(`adm_jax.plan.estimate`). What was compiled is kept, and is found again while neither the code nor
the compilers change. H100 and A100 need jax-cuda13-plugin, TPUs libtpu; neither needs a device.
"""

import argparse
import contextlib
import functools
import gzip
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
import time

TARGETS = ('h100', 'a100', 'v5e', 'v6e')
_NETWORK_STEPS = 4  # of the sampler that is compiled: its loop's body is the same at any number


# The child: it compiles with whatever adm_jax it imports, so that checkouts can be compared.

def _devices(target, config):
  from jax.experimental import topologies
  if config is not None:
    return topologies.get_topology_desc(
        platform='cuda', target_config=config, topology='1x1x1').devices
  return topologies.get_topology_desc(
      topology_name=f'{target}:1x1', platform='tpu', chips_per_host_bounds=[1, 1, 1]).devices


def _block(kind, rest, batch, dtype, gradient, place):
  """(function, arguments) of one block, whose weights are float32 as a network's."""
  import jax
  import jax.numpy as jnp

  from adm_jax.models import blocks
  widths, side = rest.split('@')
  widths, side = [int(width) for width in widths.split('-')], int(side)
  x = jax.ShapeDtypeStruct((batch, side, side, widths[0]), dtype)
  embedding = jax.ShapeDtypeStruct((batch, 768), jnp.float32)
  resample = {'down': blocks.downsample, 'up': blocks.upsample}.get(kind)
  if kind in ('resblock', 'down', 'up'):
    module, inputs = blocks.ResBlock(widths[-1], resample=resample, dtype=dtype), (x, embedding)
  elif kind == 'attention':
    module, inputs = blocks.Attention(widths[0] // 64, qkv_first=True, dtype=dtype), (x,)
  else:
    module, inputs = blocks.Norm(dtype=dtype), (x,)
  params = jax.eval_shape(module.init, jax.random.key(0), *inputs)
  if not gradient:
    return module.apply, place((params, *inputs))

  def backward(params, cotangent, *inputs):
    return jax.vjp(module.apply, params, *inputs)[1](cotangent)
  return backward, place((params, jax.eval_shape(module.apply, params, *inputs), *inputs))


def _forward(model, batch, dtype, place):
  import jax
  import jax.numpy as jnp

  from adm_jax.weights import pretrained
  found = pretrained.outline(model)
  network = found.network.having(dtype=dtype)
  x = jax.ShapeDtypeStruct((batch, *network.image_shape), jnp.float32)
  t, y = (jax.ShapeDtypeStruct((batch,), kind) for kind in (jnp.float32, jnp.int32))
  return network.apply, place((found.params, x, t, y))


def _lower(question, devices):
  """(lowered program, FLOPs of one step, how many steps it has)."""
  import jax

  from adm_jax import config as config_lib
  from adm_jax.devices import flops
  from adm_jax.plan import needs, programs
  kind, name = question['program'].split(':')
  batch, dtype = question['batch'], question['dtype']
  if kind in ('step', 'guided'):
    sampling = needs.Sampling(name, f'{name}-classifier' if kind == 'guided' else None,
                              respacing=str(_NETWORK_STEPS), dtype=dtype, batch_size=batch)
    program = programs._sampling_program(sampling, devices)
    return program.lowered, program.flops / program.evaluations, _NETWORK_STEPS
  if kind == 'training':
    config = config_lib.load(name, [f'--config.batch_size={batch}', *question['overrides']])
    program = programs._training_program(needs.training(config), devices)
    return program.lowered, program.flops, 1
  device = jax.sharding.SingleDeviceSharding(devices[0])
  place = functools.partial(jax.tree.map, lambda leaf: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=device))
  if kind == 'forward':
    function, arguments = _forward(name, batch, dtype, place)
  else:
    function, arguments = _block(kind, name, batch, dtype, question['gradient'], place)
  return jax.jit(function).lower(*arguments), flops.count(function, *arguments), 1


def _fingerprint(question):
  """Names all that an answer depends on: the question, compilers, their flags and the code."""
  import adm_jax
  package = pathlib.Path(adm_jax.__file__).parent
  digest = hashlib.sha256(json.dumps(question, sort_keys=True).encode())
  for variable in ('XLA_FLAGS', 'LIBTPU_INIT_ARGS'):
    digest.update(f'{variable}={os.environ.get(variable)}\n'.encode())
  for name in ('jax', 'jaxlib', 'flax', 'libtpu', 'jax-cuda13-plugin', 'nvidia-cudnn-cu13'):
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      digest.update(f'{name} {importlib.metadata.version(name)}\n'.encode())
  for path in (pathlib.Path(__file__), *sorted(package.rglob('*.py')),
               *sorted((package.parent / 'configs').rglob('*.py'))):
    digest.update(path.read_bytes())
  return digest.hexdigest()[:24]


def _child():
  from adm_jax.devices import target
  from adm_jax.io import cache
  question = json.load(sys.stdin)
  folder = cache.folder() / 'programs'
  kept = folder / f'{_fingerprint(question)}.json.gz'
  if not kept.exists():
    devices = _devices(question['target'], question['config'])
    begin = time.perf_counter()
    with target.tracing_for(target.of(devices[0])):
      lowered, work, steps = _lower(question, devices[:1])
    compiled = lowered.compile()
    memory = compiled.memory_analysis()
    folder.mkdir(parents=True, exist_ok=True)
    with gzip.open(kept.with_suffix('.part'), 'wt') as file:
      json.dump({
          'device_kind': devices[0].device_kind, 'flops': work, 'steps': steps,
          'arguments': memory.argument_size_in_bytes, 'temporary': memory.temp_size_in_bytes,
          'code': memory.generated_code_size_in_bytes,
          'compile_seconds': time.perf_counter() - begin, 'text': compiled.as_text()}, file)
    os.replace(kept.with_suffix('.part'), kept)
  print(json.dumps({'kept': str(kept)}))


# The parent: it counts.

def compiled(question, python):
  """What the child says of a program, the program's text included."""
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'TPU_SKIP_MDS_QUERY': '1',
                 'ALLOW_MULTIPLE_LIBTPU_LOAD': '1'}
  child = subprocess.run([python, str(pathlib.Path(__file__).resolve()), '--child'], text=True,
                         input=json.dumps(question), env=environment, capture_output=True)
  lines = [line for line in child.stdout.splitlines() if line.startswith('{"kept"')]
  if not lines:
    raise SystemExit(f'{question["program"]} for {question["target"]}: '
                     + (child.stderr.strip().splitlines() or ['no answer'])[-1][:300])
  kept = json.loads(lines[-1])['kept']
  with gzip.open(kept, 'rt') as file:
    return {**json.load(file), 'kept': kept}


def measured(answer):
  """Counts of one step: of the loop's body where a program has steps, else of all."""
  from adm_jax.devices.chips import CHIPS
  from adm_jax.plan import estimate, hlo, kernels
  found = kernels.kernels(hlo.parse(answer['text']))
  steps, kind = answer['steps'], answer['device_kind']
  repeated = [k for k in found if k.loop == steps] if steps > 1 else found
  totals = kernels.totals(repeated, steps)
  once = kernels.totals([k for k in found if k not in repeated])
  chip = CHIPS[kind]
  seconds = {k: estimate.seconds([each for each in repeated if each.kind == k], kind, steps)
             for k in totals.by_kind}
  return {
      'device': kind, 'kernels': totals.launches, 'bytes': totals.bytes,
      'once': {'kernels': once.launches, 'bytes': once.bytes}, 'flops': answer['flops'],
      'arguments': answer['arguments'], 'temporary': answer['temporary'],
      'compile_seconds': answer['compile_seconds'],
      'floor_of_arithmetic': answer['flops'] / chip.peak,
      'floor_of_bytes': totals.bytes / chip.bandwidth, 'seconds': sum(seconds.values()),
      'kinds': {k: {'kernels': launches, 'bytes': moved, 'seconds': seconds[k]}
                for k, (launches, moved) in totals.by_kind.items()}}


_ROWS = (('kernels', 'kernels', 1), ('GB', 'bytes', 1e-9), ('arguments GB', 'arguments', 1e-9),
         ('temporary GB', 'temporary', 1e-9), ('floor of bytes, ms', 'floor_of_bytes', 1e3),
         ('floor of arithmetic, ms', 'floor_of_arithmetic', 1e3), ('estimated ms', 'seconds', 1e3))


def table(columns):
  """Lines of a Markdown table; `columns` is {head: what `measured` returned}, one or two."""
  rows = [(name, [each[key] * unit for each in columns.values()]) for name, key, unit in _ROWS]
  kinds = dict.fromkeys(kind for each in columns.values() for kind in each['kinds'])
  nothing = {'kernels': 0, 'bytes': 0, 'seconds': 0}
  for kind in kinds:
    parts = [each['kinds'].get(kind, nothing) for each in columns.values()]
    rows += [(f'{kind}: kernels', [part['kernels'] for part in parts]),
             (f'{kind}: GB', [part['bytes'] / 1e9 for part in parts]),
             (f'{kind}: ms', [part['seconds'] * 1e3 for part in parts])]
  two = len(columns) == 2
  lines = [f'| | {" | ".join(columns)} |' + (' change |' if two else ''),
           '| --- |' + ' --- |' * (len(columns) + two)]
  for name, values in rows:
    change = ''
    if two:
      change = f' {100 * (values[1] / values[0] - 1):+.1f} % |' if values[0] else ' |'
    lines.append(f'| {name} | {" | ".join(f"{value:.4g}" for value in values)} |{change}')
  return lines


def main() -> None:
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
  parser.add_argument('programs', nargs='*', metavar='PROGRAM')
  parser.add_argument('--target', nargs='+', choices=TARGETS, default=['h100'])
  parser.add_argument('--batch', type=int, default=8)
  parser.add_argument('--dtype', choices=('bfloat16', 'float32'), default='bfloat16')
  parser.add_argument('--gradient', action='store_true', help='of blocks')
  parser.add_argument('--override', action='append', default=[], metavar='--config.KEY=VALUE',
                      help='of training configs: --override=--config.KEY=VALUE')
  parser.add_argument('--python', default=sys.executable, metavar='FILE',
                      help="an interpreter that sees another checkout's adm_jax")
  parser.add_argument('--json', metavar='FILE', help='keep what was counted, for --vs')
  parser.add_argument('--vs', metavar='FILE', help='print beside what --json kept')
  parser.add_argument('--text', metavar='DIR', help='write the text of the compiled programs there')
  parser.add_argument('--child', action='store_true', help=argparse.SUPPRESS)
  arguments = parser.parse_args()
  if arguments.child:
    _child()
    return
  from adm_jax.devices import gpus
  before = json.loads(pathlib.Path(arguments.vs).read_text()) if arguments.vs else {}
  results = {}
  for program in arguments.programs:
    for target in arguments.target:
      gpu = gpus.GPUS.get(target)
      question = {
          'program': program, 'target': target, 'batch': arguments.batch,
          'dtype': arguments.dtype, 'gradient': arguments.gradient,
          'overrides': arguments.override,
          'config': gpu and gpus.target_config(gpu)}
      answer = compiled(question, arguments.python)
      key = (f'{program}, {target}, batch {arguments.batch}, {arguments.dtype}'
             + (', gradient' if arguments.gradient else ''))
      results[key] = measured(answer)
      print(f'\n{key}: compiled in {answer["compile_seconds"]:.0f} s\n')
      print('\n'.join(table({**({'before': before[key]} if key in before else {}),
                             'now': results[key]})), flush=True)
      if arguments.text:
        folder = pathlib.Path(arguments.text)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / (re.sub(r'\W+', '-', key) + '.txt')).write_text(answer['text'])
  if arguments.json:
    pathlib.Path(arguments.json).write_text(json.dumps(results, indent=1))


if __name__ == '__main__':
  main()
