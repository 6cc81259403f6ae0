"""What a run needs, before anyone pays for it: the real training step, compiled for its devices.

    found = plan.measure(config_json, Target(topology='v5e:8x8'))

For a TPU topology libtpu's compiler runs on this machine, which needs no TPU, in a process of its
own; answers are kept in `zoo.cache_folder()`.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import time
from typing import Any

import jax
import numpy as np

from adm_jax import config as config_lib
from adm_jax import flops, sharding, zoo
from adm_jax.errors import UsageError
from adm_jax.files import written_whole

GIB = 2 ** 30
# Memory of one device, by JAX's name for its kind, as its maker states it.
_MEMORY = {'TPU v4': 32 * GIB, 'TPU v5 lite': 16 * GIB, 'TPU v5': 95 * GIB,
           'TPU v6 lite': 32 * GIB}


@dataclasses.dataclass(frozen=True)
class Target:
  """Where a run is to be.

  Attributes:
    topology: a TPU slice, as 'v5e:8x8'; None for `devices`.
    devices: so many simulated CPU devices; their compiler's figures stand for a GPU's only roughly.
  """
  topology: str | None = None
  devices: int | None = None

  def __post_init__(self):
    if (self.topology is None) == (self.devices is None):
      raise UsageError('give --topology, as v5e:8x8, or --devices, as 8, and not both')
    if self.topology is not None and not re.fullmatch(r'v\d+\w*:\d+x\d+(x\d+)?', self.topology):
      raise UsageError(f'--topology {self.topology}: give a generation and its shape, as v5e:8x8 '
                       'or v4:4x4x4')
    if self.devices is not None and self.devices < 1:
      raise UsageError(f'--devices {self.devices}: give at least 1')


@dataclasses.dataclass(frozen=True)
class Needs:
  """What the training step of a run needs; bytes are of one device.

  Attributes:
    device_kind: JAX's name.
    num_devices: of the mesh, `fsdp` of which share one state.
    parameters: of the network.
    flops: of a step, over all devices, by `flops.of_step`.
    state: bytes of parameters, averages, optimizer's moments and the rest of `TrainState`.
    batch: bytes of the images and labels.
    activations: bytes of everything that a step holds in between, gradients included.
    total: bytes at the most.
    memory: bytes that a device has; None where that is not known.
    peak: FLOPs a second of one device; None where that is not known.
    compile_seconds: how long lowering and compiling took.
  """
  device_kind: str
  num_devices: int
  fsdp: int
  parameters: int
  flops: float
  state: int
  batch: int
  activations: int
  total: int
  memory: int | None
  peak: float | None
  compile_seconds: float

  @property
  def fits(self) -> bool | None:
    return None if self.memory is None else self.total <= self.memory


def measure(config_json: str, target: Target) -> Needs:
  """Compiles the step of a config for a target, in a process of its own, or recalls the answer.

  Raises:
    UsageError: the run cannot be shared by these devices, libtpu is not installed, or it does not
      know the topology.
  """
  kept = zoo.cache_folder() / 'plans' / f'{_fingerprint(config_json, target)}.json'
  if not kept.exists():
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'TPU_SKIP_MDS_QUERY': '1',
                   'XLA_FLAGS': ' '.join([os.environ.get('XLA_FLAGS', ''), '--xla_force_host_'
                                          f'platform_device_count={target.devices or 1}']).strip()}
    child = subprocess.run(
        [sys.executable, '-m', 'adm_jax.plan'], env=environment, text=True, capture_output=True,
        input=json.dumps({'config': config_json, 'target': dataclasses.asdict(target)}))
    answer = _last_object(child.stdout)
    if answer is None:
      lines = child.stderr.strip().splitlines() or [f'exit code {child.returncode}']
      raise UsageError(f'the step cannot be compiled for this target: {lines[-1][:300]}')
    if 'mistake' in answer:
      raise UsageError(answer['mistake'])
    kept.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(kept) as part:
      part.write_text(json.dumps(answer))
  return Needs(**json.loads(kept.read_text()))


def _last_object(text: str) -> dict[str, Any] | None:
  """The JSON object of the last line: libraries write to stdout, too."""
  lines = [line for line in text.splitlines() if line.startswith('{')]
  return json.loads(lines[-1]) if lines else None


def _fingerprint(config_json: str, target: Target) -> str:
  """Names all that an answer depends on: the run, the target, the compilers and this code."""
  digest = hashlib.sha256(f'{config_json}\n{target}\n'.encode())
  for name in ('jax', 'jaxlib', 'flax', *(['libtpu'] if _has_libtpu() else [])):
    digest.update(f'{name} {importlib.metadata.version(name)}\n'.encode())
  package = pathlib.Path(__file__).parent
  for path in sorted([*package.glob('*.py'), *package.glob('models/*.py'),
                      *package.glob('training/*.py')]):
    digest.update(path.read_bytes())
  return digest.hexdigest()[:24]


def _has_libtpu() -> bool:
  try:
    return bool(importlib.metadata.version('libtpu'))
  except importlib.metadata.PackageNotFoundError:
    return False


def _compile(config_json: str, target: Target) -> Needs:
  """In the child: lowers and compiles from shapes alone; no array of the network's size is made."""
  config = config_lib.from_json(config_json)
  config.data = config_lib.call(_nothing, like=config.task)
  config.parallel = 'jit'  # a `pmap` needs the same, and cannot be compiled without its devices
  run = config_lib.build(config)
  devices = _devices(target)
  begin = time.perf_counter()
  trainer = run.trainer(devices)
  rows = run.batch_size
  struct = jax.ShapeDtypeStruct
  split = sharding.over_batch(trainer.mesh)
  batch = {'image': struct((rows, *run.task.image_shape), np.uint8, sharding=split),
           'label': struct((rows,), np.int32, sharding=split)}
  key = jax.eval_shape(lambda: jax.random.key(0))
  compiled = trainer.step.lower(trainer.shapes, batch, key).compile()
  memory = compiled.memory_analysis()
  state, images = (_bytes(tree) for tree in (trainer.shapes, batch))
  # The new state lies where the old one was.
  total = (memory.argument_size_in_bytes + memory.output_size_in_bytes
           - memory.alias_size_in_bytes + memory.temp_size_in_bytes
           + memory.generated_code_size_in_bytes)
  kind = devices[0].device_kind
  return Needs(
      device_kind=kind, num_devices=len(devices), fsdp=run.fsdp,
      parameters=sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(trainer.shapes.params)),
      flops=flops.of_step(run.task, run.batch_size), state=state, batch=images,
      activations=memory.temp_size_in_bytes, total=total, memory=_MEMORY.get(kind),
      peak=flops.peak(devices[0]), compile_seconds=time.perf_counter() - begin)


def _nothing(like: Any):
  """A data set without images, of the shape and the classes that a task is for."""
  from adm_jax.data.sources import ArraySource
  classes = getattr(getattr(like.model, 'unet', like.model), 'num_classes', None) or 0
  return ArraySource('nothing', np.zeros((0, *like.image_shape), np.uint8), np.zeros(0, np.int32),
                     tuple(map(str, range(classes))))


def _bytes(tree: Any) -> int:
  """Of one device's part of shapes with shardings."""
  return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
             for leaf in jax.tree.leaves(tree))


def _devices(target: Target) -> list[Any]:
  if target.topology is None:
    return jax.devices()
  if not _has_libtpu():
    raise UsageError(f'--topology {target.topology} needs the compiler for TPUs, which runs '
                     'anywhere on Linux: pip install libtpu')
  from jax.experimental import topologies
  try:
    return topologies.get_topology_desc(topology_name=target.topology, platform='tpu').devices
  except Exception as error:
    reason = ' '.join(str(error).split())[:160]
    raise UsageError(f'libtpu knows no slice {target.topology} ({reason}): give one as v5e:8x8'
                     ) from error


def report(needs: Needs, total_steps: int, batch_size: int, remat: str,
           utilization: float) -> list[str]:
  """Lines that say what a run needs, whether that fits, and what to change where it does not."""
  gib = [(name, getattr(needs, name) / GIB)
         for name in ('state', 'batch', 'activations', 'total')]
  lines = [
      f'{needs.num_devices} x {needs.device_kind}, fsdp={needs.fsdp}: compiled in '
      f'{needs.compile_seconds:.0f} s',
      f'parameters: {needs.parameters:,}',
      f'a step: {needs.flops / 1e12:.4g} TFLOP, {batch_size} images',
      'a device: ' + ', '.join(f'{name} {value:.3g} GiB' for name, value in gib)]
  if needs.memory is not None:
    lines.append(f'it has {needs.memory / GIB:.0f} GiB: '
                 + ('it fits' if needs.fits else f'too little; {advice(needs, remat)}'))
  if needs.peak is None:
    lines.append(f'how fast a {needs.device_kind} is at most is not known here')
  else:
    seconds = needs.flops / (needs.peak * needs.num_devices * utilization)
    lines.append(f'{total_steps:,} steps at {utilization:.0%} of peak: {seconds:.3g} s a step, '
                 f'{total_steps * seconds / 3600:,.1f} hours')
  return lines


def advice(needs: Needs, remat: str) -> str:
  """What to change first so that a run fits; state is split, activations are cut or recomputed."""
  if needs.state > needs.memory / 2 and needs.fsdp < needs.num_devices:
    return (f'the state takes {needs.state / needs.memory:.0%}: share it, '
            f'--config.fsdp={_next_divisor(needs)}')
  if remat in ('none', 'attention'):
    return ('store less for the backward pass: --config.task.model.remat=blocks, which costs no '
            'convolution')
  more = 2 ** math.ceil(math.log2(max(2, needs.activations / max(1, needs.memory - needs.state))))
  return f'cut the batch: --config.microbatches={more}, or use more devices'


def _next_divisor(needs: Needs) -> int:
  """The least fsdp that brings the state below a third of the memory."""
  whole = needs.state * needs.fsdp
  divisors = [n for n in range(1, needs.num_devices + 1) if needs.num_devices % n == 0]
  return next((n for n in divisors if whole / n < needs.memory / 3), needs.num_devices)


if __name__ == '__main__':
  asked = json.load(sys.stdin)
  try:
    print(json.dumps(dataclasses.asdict(_compile(asked['config'], Target(**asked['target'])))))
  except UsageError as mistake:
    print(json.dumps({'mistake': str(mistake)}))
