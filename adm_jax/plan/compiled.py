"""What a run needs, before anyone pays for it: the real program, compiled for its devices.

    needs = plan.measure(training(config), Target(topology='v5e:8x8'))
    needs = plan.measure(Sampling('imagenet256', 'imagenet256-classifier'), Target(devices=8))

For a TPU topology libtpu's compiler runs on this machine, which needs no TPU, in a process of its
own; answers are kept in `io.cache.folder()`.
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
from typing import Any, NamedTuple, Sequence

import jax
import numpy as np

from adm_jax import config as config_lib
from adm_jax import stored_configs
from adm_jax.data.sources import ArraySource
from adm_jax.devices import flops, sharding
from adm_jax.errors import UsageError
from adm_jax.io import cache
from adm_jax.io.files import written_whole
from adm_jax.networks import Network
from adm_jax.sampling import guidance, pipeline
from adm_jax.sampling.sampler import remembering_x0
from adm_jax.weights import pretrained

GIB = 2 ** 30
# Memory of one device, by JAX's name for its kind, as its maker states it.
_MEMORY = {'TPU v4': 32 * GIB, 'TPU v5 lite': 16 * GIB, 'TPU v5': 95 * GIB,
           'TPU v6 lite': 32 * GIB, 'NVIDIA H100 80GB HBM3': 80 * GIB,
           'NVIDIA H100 PCIe': 80 * GIB, 'NVIDIA H200': 141 * 10**9,
           'NVIDIA A100-SXM4-40GB': 40 * GIB, 'NVIDIA A100-SXM4-80GB': 80 * GIB,
           'NVIDIA A100-PCIE-40GB': 40 * GIB, 'NVIDIA A100 80GB PCIe': 80 * GIB,
           'NVIDIA L4': 24 * GIB, 'NVIDIA A10G': 24 * GIB}


@dataclasses.dataclass(frozen=True)
class Target:
  """Where a run is to be.

  Attributes:
    topology: a TPU slice, as 'v5e:8x8'; None for `devices`.
    devices: so many simulated CPU devices; their compiler's figures stand for a GPU's only roughly.
    device_kind: what these stand for, by JAX's name, as 'NVIDIA L4': how much memory it has and how
      fast it is.
  """
  topology: str | None = None
  devices: int | None = None
  device_kind: str | None = None

  def __post_init__(self):
    if (self.topology is None) == (self.devices is None):
      raise UsageError('give --topology, as v5e:8x8, or --devices, as 8, and not both')
    if self.topology is not None and not re.fullmatch(r'v\d+\w*:\d+x\d+(x\d+)?', self.topology):
      raise UsageError(f'--topology {self.topology}: give a generation and its shape, as v5e:8x8 '
                       'or v4:4x4x4')
    if self.devices is not None and self.devices < 1:
      raise UsageError(f'--devices {self.devices}: give at least 1')
    if self.device_kind is not None and (self.devices is None or self.device_kind not in _MEMORY):
      raise UsageError(f'--device-kind {self.device_kind}: give it with --devices, and one of '
                       f'{", ".join(sorted(_MEMORY))}')


@dataclasses.dataclass(frozen=True)
class Training:
  """A step of a training run; made by `training`.

  Attributes:
    config: as JSON, without data; it tells runs apart, and is built unless there is a `path`.
    path: the file that the config came from, for configs that name functions of a user's own,
      which a stored one may not.
    overrides: of that file, as on the command line.
    source: the text of that file.
  """
  config: str
  path: str | None = None
  overrides: tuple[str, ...] = ()
  source: str = ''


def training(config: config_lib.ConfigDict, path: str | pathlib.Path | None = None,
             overrides: Sequence[str] = ()) -> Training:
  """Returns the step of a config's run, whatever its data are: a plan needs none of them.

  Args:
    config: overridden already.
    path: where it came from, if it names functions of a user's own.
    overrides: which led to `config` from there.
  """
  config = config.copy_and_resolve_references()
  config.data = None
  text = stored_configs.to_json(config)
  if path is None or stored_configs.is_trusted(text):
    return Training(text)
  path = pathlib.Path(path).absolute()
  return Training(text, str(path), tuple(overrides), path.read_text())


@dataclasses.dataclass(frozen=True)
class Sampling:
  """A batch of samples from noise to images; arguments of `pipeline.load`, by name.

  Attributes:
    batch_size: images at once, over all devices; None for one on each.
  """
  model: str
  classifier: str | None = None
  respacing: str | None = None
  cfg_scale: float | None = None
  weaker: str | None = None
  dtype: str = 'bfloat16'
  fsdp: int = 1
  batch_size: int | None = None


@dataclasses.dataclass(frozen=True)
class Needs:
  """What the program of a run needs; bytes are of one device.

  Attributes:
    device_kind: JAX's name.
    num_devices: of the mesh, `fsdp` of which share one state.
    batch_size: over all devices.
    evaluations: of the denoiser in a sampling run; None for training.
    parameters: of the networks.
    flops: over all devices, by our own count; of a training step, or of a batch of samples.
    state: bytes of what stays: weights, and in training the rest of `TrainState`.
    batch: bytes of the images and labels.
    activations: bytes of everything that the program holds in between, gradients included.
    total: bytes at the most.
    memory: bytes that a device has; None where that is not known.
    peak: FLOPs a second of one device; None where that is not known.
    compile_seconds: how long lowering and compiling took.
    refused: the compiler found that it does not fit, and gave up; the bytes are those it named.
  """
  device_kind: str
  num_devices: int
  fsdp: int
  batch_size: int
  evaluations: int | None
  parameters: int
  flops: float
  state: int
  batch: int
  activations: int
  total: int
  memory: int | None
  peak: float | None
  compile_seconds: float
  refused: bool = False

  @property
  def fits(self) -> bool | None:
    return None if self.memory is None else not self.refused and self.total <= self.memory


def measure(run: Training | Sampling, target: Target) -> Needs:
  """Compiles a run's program for a target, in a process of its own, or recalls the answer.

  Raises:
    UsageError: the run cannot be shared by these devices, libtpu is not installed, or it does not
      know the topology.
  """
  kept = cache.folder() / 'plans' / f'{_fingerprint(run, target)}.json'
  if not kept.exists():
    # libtpu may be in use by others here: this one only compiles.
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'TPU_SKIP_MDS_QUERY': '1',
                   'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
                   'XLA_FLAGS': ' '.join([os.environ.get('XLA_FLAGS', ''), '--xla_force_host_'
                                          f'platform_device_count={target.devices or 1}']).strip()}
    child = subprocess.run(
        [sys.executable, '-m', 'adm_jax.plan.compiled'], env=environment, text=True,
        capture_output=True,
        input=json.dumps({'kind': type(run).__name__, 'run': dataclasses.asdict(run),
                          'target': dataclasses.asdict(target)}))
    answer = _last_object(child.stdout)
    if answer is None:
      lines = child.stderr.strip().splitlines() or [f'exit code {child.returncode}']
      raise UsageError(f'this cannot be compiled for the target: {lines[-1][:300]}')
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


def _fingerprint(run: Training | Sampling, target: Target) -> str:
  """Names all that an answer depends on: the run, the target, the compilers and this code."""
  digest = hashlib.sha256(f'{run}\n{target}\n'.encode())
  for name in map(str, dataclasses.astuple(run) if isinstance(run, Sampling) else ()):
    if os.path.exists(name):  # where another model may come to lie
      digest.update(f'{os.path.realpath(name)} {os.stat(name).st_mtime_ns}\n'.encode())
  for name in ('jax', 'jaxlib', 'flax', *(['libtpu'] if _has_libtpu() else [])):
    digest.update(f'{name} {importlib.metadata.version(name)}\n'.encode())
  for path in sorted(pathlib.Path(__file__).parents[1].rglob('*.py')):
    digest.update(path.read_bytes())
  return digest.hexdigest()[:24]


def _has_libtpu() -> bool:
  try:
    return bool(importlib.metadata.version('libtpu'))
  except importlib.metadata.PackageNotFoundError:
    return False


def _compile(run: Training | Sampling, target: Target) -> Needs:
  """In the child: lowers and compiles from shapes alone; no array of a network's size is made."""
  devices = _devices(target)
  begin = time.perf_counter()
  make = _training_program if isinstance(run, Training) else _sampling_program
  program = make(run, devices)
  state, batch, refused = _bytes(program.state), _bytes(program.batch), False
  try:
    memory = program.lowered.compile().memory_analysis()
    activations = memory.temp_size_in_bytes
    # What is donated lies where it did.
    total = (memory.argument_size_in_bytes + memory.output_size_in_bytes
             - memory.alias_size_in_bytes + memory.temp_size_in_bytes
             + memory.generated_code_size_in_bytes)
  except jax.errors.JaxRuntimeError as error:
    total = _bytes_refused(str(error), state + batch)
    if total is None:
      raise
    activations, refused = total - state - batch, True
  kind = target.device_kind or devices[0].device_kind
  return Needs(
      device_kind=kind, num_devices=len(devices), fsdp=program.fsdp, batch_size=program.batch_size,
      evaluations=program.evaluations,
      parameters=sum(leaf.size for leaf in jax.tree.leaves(program.params)),
      flops=program.flops, state=state, batch=batch, activations=activations, total=total,
      memory=_MEMORY.get(kind), peak=flops.peak_of(kind),
      compile_seconds=time.perf_counter() - begin, refused=refused)


def _bytes_refused(message: str, arguments: int) -> int | None:
  """What a program with so many bytes of arguments needs, by a compiler that has not so much.

  It names all of them ('Used 17.1G of 15.75G hbm') or only what lies in between.
  """
  match = re.search(r'RESOURCE_EXHAUSTED.*?(Used )?([\d.]+)([KMG])\b', message, re.DOTALL)
  if match is None:
    return None
  named = round(float(match[2]) * 1024 ** ' KMG'.index(match[3]))
  return named if match[1] else named + arguments


class _Program(NamedTuple):
  """A lowered program; its arguments as shapes with shardings: `state` stays, `batch` goes."""
  lowered: Any
  state: Any
  batch: Any
  params: Any
  flops: float
  batch_size: int
  fsdp: int
  evaluations: int | None = None


def _training_program(training: Training, devices: Sequence[Any]) -> _Program:
  config = (stored_configs.from_json(training.config) if training.path is None else
            config_lib.override(config_lib.load(training.path), list(training.overrides)))
  config.data = config_lib.call(_nothing, network=config.task.network)
  config.parallel = 'jit'  # a `pmap` needs the same, and cannot be compiled without its devices
  run = config_lib.build(config)
  trainer = run.trainer(devices)
  split = sharding.over_batch(trainer.mesh)
  rows = run.batch_size
  batch = {
      'image': jax.ShapeDtypeStruct((rows, *run.task.network.image_shape), np.uint8,
                                    sharding=split),
      'label': jax.ShapeDtypeStruct((rows,), np.int32, sharding=split)}
  return _Program(trainer.step.lower(trainer.shapes, batch, _key(), trainer.frozen),
                  (trainer.shapes, trainer.frozen), batch,
                  trainer.shapes.params, flops.of_step(run.task, rows), rows, run.fsdp)


def _sampling_program(sampling: Sampling, devices: Sequence[Any]) -> _Program:
  outline = pretrained.outline
  guides = ((sampling.cfg_scale, guidance.ClassifierFree),
            (sampling.weaker, lambda name: guidance.ByWeakerModel(outline(name))),
            (sampling.classifier, lambda name: guidance.ByClassifier(outline(name))))
  adm = pipeline.load(
      outline(sampling.model),
      guidance=[make(given) for given, make in guides if given is not None],
      steps=pipeline.Course(sampling.respacing), dtype=sampling.dtype, fsdp=sampling.fsdp,
      devices=devices)
  sampler = adm.sampler
  rows = len(devices) if sampling.batch_size is None else sampling.batch_size
  sharding.check_batch(rows, len(devices), 1)
  split = sharding.over_batch(sampler.mesh)

  def of_rows(*shape, dtype=np.float32):
    return jax.ShapeDtypeStruct((rows, *shape), dtype, sharding=split)
  x = of_rows(*sampler.shape)
  memory = jax.tree.map(lambda leaf: of_rows(*leaf.shape[1:], dtype=leaf.dtype),
                        jax.eval_shape(remembering_x0(sampler.solver).init, x))
  keys = of_rows(dtype=_key().dtype)
  labels = None if adm.num_classes is None else of_rows(dtype=np.int32)
  low_res = None if adm.low_res_shape is None else of_rows(*adm.low_res_shape)
  arguments = (adm.params, (x, memory), sampler.steps, keys, labels, low_res)
  return _Program(jax.jit(sampler.advance, donate_argnums=1).lower(*arguments), adm.weights,
                  arguments[1:2], adm.weights, flops.count(sampler.advance, *arguments), rows,
                  sampling.fsdp, sampler.num_evaluations)


def _key() -> Any:
  return jax.eval_shape(lambda: jax.random.key(0))


def _nothing(network: Network) -> ArraySource:
  """A data set without images, of the shape and the classes that a network is for."""
  return ArraySource('nothing', np.zeros((0, *network.image_shape), np.uint8),
                     np.zeros(0, np.int32), tuple(map(str, range(network.num_classes or 0))))


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


def report(needs: Needs) -> list[str]:
  """Lines that say what a run needs and whether that fits."""
  gib = [(name, getattr(needs, name) / GIB)
         for name in ('state', 'batch', 'activations', 'total')]
  what = ('a step' if needs.evaluations is None
          else f'a batch from noise to images, {needs.evaluations} evaluations')
  lines = [
      f'{needs.num_devices} x {needs.device_kind}, fsdp={needs.fsdp}: compiled in '
      f'{needs.compile_seconds:.0f} s',
      f'parameters: {needs.parameters:,}',
      f'{what}: {needs.flops / 1e12:.4g} TFLOP, {needs.batch_size} images',
      'a device: ' + ', '.join(f'{name} {value:.3g} GiB' for name, value in gib)]
  if needs.memory is not None:
    lines.append(f'it has {needs.memory / GIB:.0f} GiB: '
                 + ('it fits' if needs.fits else 'too little'))
  return lines


def hours(needs: Needs, utilization: float, total_steps: int | None = None) -> str:
  """How long it takes at a share of the peak: `total_steps` of training, or sampling."""
  if needs.peak is None:
    return f'how fast a {needs.device_kind} is at most is not known here'
  seconds = needs.flops / (needs.peak * needs.num_devices * utilization)
  if needs.evaluations is None:
    return (f'{total_steps:,} steps at {utilization:.0%} of peak: {seconds:.3g} s a step, '
            f'{total_steps * seconds / 3600:,.1f} hours')
  return (f'at {utilization:.0%} of peak: {seconds:.3g} s a batch, '
          f'{needs.batch_size / seconds:.3g} images/s, 50,000 images in '
          f'{50_000 * seconds / needs.batch_size / 3600:,.1f} hours')


def advice(needs: Needs, remat: str | None, microbatches: int = 1,
           remat_key: str = 'task.network.module.remat') -> str:
  """What to change first so that a run fits; state is split, activations are cut or recomputed.

  `remat` is the trained network's, which its config has at `remat_key`; None for sampling.
  """
  rows = needs.batch_size // needs.num_devices // microbatches
  if needs.state > needs.memory / 2 and needs.fsdp < needs.num_devices:
    return (f'the state takes {needs.state / needs.memory:.0%}: share it, '
            f'--{"" if remat is None else "config."}fsdp={_next_divisor(needs)}')
  if remat is None and rows > 1:
    return f'sample fewer at once: --batch-size {max(1, rows // 2) * needs.num_devices}'
  if remat in ('none', 'attention'):
    return (f'store less for the backward pass: --config.{remat_key}=blocks, which costs no '
            'convolution')
  if rows > 1:
    wanted = max(2, needs.activations / max(1, needs.memory - needs.state))
    more = next(n for n in range(1, rows + 1) if rows % n == 0 and (n >= wanted or n == rows))
    return f'cut the batch: --config.microbatches={more * microbatches}, or use more devices'
  return 'each device has one image at a time already: use devices with more memory'


def _next_divisor(needs: Needs) -> int:
  """The least fsdp that brings the state below a third of the memory."""
  whole = needs.state * needs.fsdp
  divisors = [n for n in range(1, needs.num_devices + 1) if needs.num_devices % n == 0]
  return next((n for n in divisors if whole / n < needs.memory / 3), needs.num_devices)


if __name__ == '__main__':
  asked = json.load(sys.stdin)
  try:
    found = _compile({'Training': Training, 'Sampling': Sampling}[asked['kind']](**asked['run']),
                     Target(**asked['target']))
    print(json.dumps(dataclasses.asdict(found)))
  except UsageError as mistake:
    print(json.dumps({'mistake': str(mistake)}))
