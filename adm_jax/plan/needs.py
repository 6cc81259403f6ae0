"""What a run needs, before anyone pays for it: the real program, compiled for its devices.

    needs = measure(training(config), Target(topology='v5e:8x8'))
    needs = measure(Sampling('imagenet256', 'imagenet256-classifier'), Target(devices=8))

For a topology libtpu's or CUDA's compiler runs on this machine, which needs no such device, in a
process of its own (`plan.programs`); answers are kept in `io.cache.folder()`.
"""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import os
import pathlib
import re
import subprocess
import sys
from typing import Any, Sequence

from adm_jax import config as config_lib
from adm_jax import stored_configs
from adm_jax.devices.chips import CHIPS
from adm_jax.devices.gpus import GPUS
from adm_jax.errors import UsageError
from adm_jax.io import cache, files
from adm_jax.io.files import written_whole
from adm_jax.training import distillation
from adm_jax.weights import catalog, shipped
from adm_jax.weights.folders import Trained


@dataclasses.dataclass(frozen=True)
class Target:
  """Where a run is to be.

  Attributes:
    topology: a TPU slice, as 'v5e:8x8', or GPUs of one host, as 'h100:8'; None for `devices`.
    devices: so many simulated CPU devices; their compiler's figures stand for a GPU's only roughly.
    device_kind: what these stand for, by JAX's name, as 'NVIDIA L4': how much memory it has and how
      fast it is.
  """
  topology: str | None = None
  devices: int | None = None
  device_kind: str | None = None

  def __post_init__(self):
    if (self.topology is None) == (self.devices is None):
      raise UsageError('give --topology, as v5e:8x8 or h100:8, or --devices, as 8, and not both')
    if self.topology is not None:
      self._check_topology()
    if self.devices is not None and self.devices < 1:
      raise UsageError(f'--devices {self.devices}: give at least 1')
    if self.device_kind is not None and (self.devices is None or self.device_kind not in CHIPS):
      raise UsageError(f'--device-kind {self.device_kind}: give it with --devices, and one of '
                       f'{", ".join(sorted(CHIPS))}')

  @property
  def gpus(self) -> tuple[str, int] | None:
    """(name in `gpus.GPUS`, how many) of a topology of GPUs; None of others."""
    found = re.fullmatch(r'(\w+):(\d+)', self.topology or '')
    return (found[1], int(found[2])) if found else None

  def _check_topology(self) -> None:
    if self.gpus is None:
      if not re.fullmatch(r'v\d+\w*:\d+x\d+(x\d+)?', self.topology):
        raise UsageError(f'--topology {self.topology}: give a TPU and its shape, as v5e:8x8 or '
                         'v4:4x4x4, or a GPU and how many, as h100:8')
      return
    name, count = self.gpus
    if name not in GPUS:
      raise UsageError(f'--topology {self.topology}: give one of {", ".join(GPUS)} and how many, '
                       'as h100:8, or a TPU and its shape, as v5e:8x8')
    if count < 1:
      raise UsageError(f'--topology {self.topology}: give at least 1 GPU, as {name}:1')


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
  path = config_lib.find(path).absolute()
  return Training(text, str(path), tuple(overrides), path.read_text())


def untrained_teacher(config: config_lib.ConfigDict) -> str | None:
  """The work directory that a run is to learn from and that is not there yet, if there is one.

  Such a teacher has its student's network, which is all that a plan needs to know of it.
  """
  if config.task.fn not in (distillation.consistency, distillation.progressive):
    return None
  name = config.task.teacher
  known = isinstance(name, Trained) or name in catalog.MODELS or name in shipped.names()
  return None if known or files.folder(name).exists() else name


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
class Evaluation:
  """Inception's features of a batch of images, which is what evaluating them takes.

  Attributes:
    side: H = W of the images.
    batch_size: images at once, over all devices; None for 64 on each.
  """
  side: int
  batch_size: int | None = None

  def __post_init__(self):
    if self.side < 1:
      raise UsageError(f'--evaluate {self.side}: give the side of the images, at least 1')


Run = Training | Sampling | Evaluation


@dataclasses.dataclass(frozen=True)
class Needs:
  """What the program of a run needs; bytes are of one device.

  Attributes:
    device_kind: JAX's name.
    num_devices: of the mesh, `fsdp` of which share one state.
    batch_size: over all devices.
    evaluations: of the denoiser in a sampling run; None for others.
    parameters: of the networks.
    flops: over all devices, by our own count; of a training step, or of a batch of images.
    state: bytes of what stays: weights, and in training the rest of `TrainState`.
    batch: bytes of the images and labels.
    activations: bytes of everything that the program holds in between, gradients included.
    total: bytes at the most.
    memory: bytes that a device has; None where that is not known.
    peak: FLOPs per second of one device; None where that is not known.
    compile_seconds: how long lowering and compiling took.
    refused: the compiler found that it does not fit, and gave up; the bytes are those it named.
    spare: bytes of `memory` that must stay free for what the compiler cannot know: on absent GPUs
      it chooses no algorithms, and the bytes leave out what these need.
    launches: how many kernels one device launches; None for a compiler whose programs are not
      counted here.
    moved: bytes that these read and write; None likewise.
    seconds: estimated (`plan.estimate`), of a step or a batch of images; None likewise.
    run: what was asked for: 'Training', 'Sampling' or 'Evaluation'.
    height: of the images.
    width: of the images.
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
  spare: int = 0
  launches: int | None = None
  moved: float | None = None
  seconds: float | None = None
  run: str = 'Training'
  height: int = 0
  width: int = 0

  @property
  def fits(self) -> bool | None:
    if self.memory is None:
      return None
    return not self.refused and self.total <= self.memory - self.spare


def measure(run: Run, target: Target) -> Needs:
  """Compiles a run's program for a target, in a process of its own, or recalls the answer.

  Raises:
    UsageError: the run cannot be shared by these devices, their compiler is not installed, or it
      does not know the topology.
  """
  kept = cache.folder() / 'plans' / f'{_fingerprint(run, target)}.json'
  if not kept.exists():
    # libtpu may be in use by others here: this one only compiles.
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'TPU_SKIP_MDS_QUERY': '1',
                   'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
                   'XLA_FLAGS': ' '.join([os.environ.get('XLA_FLAGS', ''), '--xla_force_host_'
                                          f'platform_device_count={target.devices or 1}']).strip()}
    child = subprocess.run(
        [sys.executable, '-m', 'adm_jax.plan.programs'], env=environment, text=True,
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


def _fingerprint(run: Run, target: Target) -> str:
  """Names all that an answer depends on: the run, the target, the compilers and this code."""
  digest = hashlib.sha256(f'{run}\n{target}\n'.encode())
  for name in map(str, _models(run)):
    if os.path.exists(name):  # where another model may come to lie
      digest.update(f'{os.path.realpath(name)} {os.stat(name).st_mtime_ns}\n'.encode())
  for name in ('jax', 'jaxlib', 'flax', 'libtpu', 'jax-cuda13-plugin', 'nvidia-cudnn-cu13'):
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      digest.update(f'{name} {importlib.metadata.version(name)}\n'.encode())
  flags = {name: os.environ.get(name) for name in ('XLA_FLAGS', 'LIBTPU_INIT_ARGS')}
  digest.update(f'{flags}\n'.encode())
  for path in sorted(pathlib.Path(__file__).parents[1].rglob('*.py')):
    digest.update(path.read_bytes())
  return digest.hexdigest()[:24]


def _models(run: Run) -> Sequence[Any]:
  """What may name models of somebody's own, by their paths, among what a run was asked with."""
  if isinstance(run, Training):
    task = json.loads(run.config).get('task') or {}
    return [task.get(name) for name in ('teacher', 'classifier', 'weaker')]
  return dataclasses.astuple(run) if isinstance(run, Sampling) else ()


def has_libtpu() -> bool:
  """Whether the compiler for TPUs is installed."""
  try:
    return bool(importlib.metadata.version('libtpu'))
  except importlib.metadata.PackageNotFoundError:
    return False
