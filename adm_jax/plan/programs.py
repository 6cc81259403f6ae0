"""The child process of a plan: lowers and compiles a run's program for its target.

From shapes alone: no array of a network's size is made. It reads what to compile from its standard
input, and prints the answer, as JSON.
"""

import dataclasses
import json
import math
import re
import sys
import time
from typing import Any, NamedTuple, Sequence, get_args

import jax
import numpy as np

from adm_jax import config as config_lib
from adm_jax import stored_configs
from adm_jax.data.sources import ArraySource
from adm_jax.devices import chips, flops, gpus, sharding
from adm_jax.devices.chips import CHIPS
from adm_jax.errors import UsageError, one_line
from adm_jax.evaluation import features, inception
from adm_jax.io import extras
from adm_jax.networks import Network
from adm_jax.plan import estimate, hlo, kernels
from adm_jax.plan.needs import (
  Evaluation,
  Needs,
  Run,
  Sampling,
  Target,
  Training,
  has_libtpu,
  untrained_teacher,
)
from adm_jax.sampling import guidance, pipeline
from adm_jax.sampling.sampler import remembering_x0
from adm_jax.training.flops import of_step
from adm_jax.weights import pretrained
from adm_jax.weights.folders import Trained

# A tenth of a GPU's memory stays free: cuDNN's workspaces, which are chosen on the card, CUDA's
# context and the buffers of collectives are in no figure of a compiler without one.
_SPARE = 10


def _compile(run: Run, target: Target) -> Needs:
  """In the child: lowers and compiles from shapes alone; no array of a network's size is made."""
  devices = _devices(target)
  begin = time.perf_counter()
  program = _PROGRAMS[type(run).__name__](run, devices)
  state, batch, refused = _bytes(program.state), _bytes(program.batch), False
  kind = target.device_kind or devices[0].device_kind
  height, width, _ = program.shape
  counted: dict[str, Any] = {}
  try:
    compiled = program.lowered.compile()
    memory = compiled.memory_analysis()
    counted = {} if target.topology is None else _counted(compiled.as_text(), kind)
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
  return Needs(
      device_kind=kind, num_devices=len(devices), fsdp=program.fsdp, batch_size=program.batch_size,
      evaluations=program.evaluations,
      parameters=sum(leaf.size for leaf in jax.tree.leaves(program.params)),
      flops=program.flops, state=state, batch=batch, activations=activations, total=total,
      memory=CHIPS[kind].memory if kind in CHIPS else None, peak=chips.peak(kind),
      compile_seconds=time.perf_counter() - begin, refused=refused, run=type(run).__name__,
      height=height, width=width,
      spare=0 if target.gpus is None else CHIPS[kind].memory // _SPARE, **counted)


def _counted(text: str, kind: str) -> dict[str, Any]:
  """What a compiled program launches, and how long that should take."""
  found = kernels.kernels(hlo.parse(text))
  totals = kernels.totals(found)
  return {'launches': round(totals.launches), 'moved': totals.bytes,
          'seconds': estimate.seconds(found, kind)}


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
  """A lowered program; its arguments as shapes with shardings: `state` stays, `batch` goes.

  `shape` is the images', (H, W, C).
  """
  lowered: Any
  state: Any
  batch: Any
  params: Any
  flops: float
  batch_size: int
  fsdp: int
  shape: tuple[int, int, int]
  evaluations: int | None = None


def _training_program(training: Training, devices: Sequence[Any]) -> _Program:
  config = (stored_configs.from_json(training.config) if training.path is None else
            config_lib.load(training.path, training.overrides))
  config.data = config_lib.call(_nothing, network=config.task.network)
  if untrained_teacher(config) is not None:
    words = {**config.task, 'teacher': config_lib.call(_to_be_trained, network=config.task.network)}
    config.task = config_lib.call(words.pop(config_lib.FN), **words)
  config.parallel = 'jit'  # a `pmap` needs the same, and cannot be compiled without its devices
  run = config_lib.build(config)
  trainer = run.trainer(devices, outline=True)
  split = sharding.over_batch(trainer.mesh)
  rows = run.batch_size
  batch = {
      'image': jax.ShapeDtypeStruct((rows, *run.task.network.image_shape), np.uint8,
                                    sharding=split),
      'label': jax.ShapeDtypeStruct((rows,), np.int32, sharding=split)}
  return _Program(trainer.step.lower(trainer.shapes, batch, _key(), trainer.frozen),
                  (trainer.shapes, trainer.frozen), batch,
                  trainer.shapes.params, of_step(run.task, rows), rows, run.fsdp,
                  run.task.network.image_shape)


def _to_be_trained(network: Network) -> Trained:
  """What stage 1 will have made for a student: its own network, of no number of steps yet."""
  teacher = dataclasses.replace(network, steps=None)
  return Trained(teacher, teacher.abstract_params())


def _sampling_program(sampling: Sampling, devices: Sequence[Any]) -> _Program:
  outline = pretrained.outline
  guides = ((sampling.cfg_scale, guidance.ClassifierFree),
            (sampling.weaker, lambda name: guidance.ByWeakerModel(outline(name))),
            (sampling.classifier, lambda name: guidance.ByClassifier(outline(name))))
  adm = pipeline.load(
      outline(sampling.model),
      guidance=[make(given) for given, make in guides if given is not None],
      steps=sampling.respacing, dtype=sampling.dtype, fsdp=sampling.fsdp,
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
  return _Program(sampler.program.lower(*arguments), adm.weights, arguments[1:2], adm.weights,
                  flops.count(sampler.advance, *arguments), rows, sampling.fsdp,
                  sampler.shape, sampler.num_evaluations)


def _evaluation_program(evaluation: Evaluation, devices: Sequence[Any]) -> _Program:
  mesh = sharding.mesh(devices=devices)
  rows = evaluation.batch_size or 64 * len(devices)
  sharding.check_batch(rows, len(devices), 1)
  whole, split = sharding.replicated(mesh), sharding.over_batch(mesh)
  images = jax.ShapeDtypeStruct((rows, evaluation.side, evaluation.side, 3), np.uint8,
                                sharding=split)
  params = jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole),
      jax.eval_shape(inception.Inception().init, _key(), images)['params'])
  function = features.of_inception()
  lowered = jax.jit(function, in_shardings=(whole, split)).lower(params, images)
  return _Program(lowered, params, images, params, flops.count(function, params, images), rows, 1,
                  images.shape[1:])


_PROGRAMS = {'Training': _training_program, 'Sampling': _sampling_program,
             'Evaluation': _evaluation_program}


def _key() -> Any:
  return jax.eval_shape(lambda: jax.random.key(0))


def _nothing(network: Network) -> ArraySource:
  """A data set of one black image, of the shape and the classes that a network is for."""
  return ArraySource('nothing', np.zeros((1, *network.image_shape), np.uint8),
                     np.zeros(1, np.int32), tuple(map(str, range(network.num_classes or 0))))


def _bytes(tree: Any) -> int:
  """Of one device's part of shapes with shardings."""
  return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
             for leaf in jax.tree.leaves(tree))


def _devices(target: Target) -> list[Any]:
  if target.topology is None:
    return jax.devices()
  if target.gpus is not None:
    if not gpus.has_compiler():
      raise UsageError(f'--topology {target.topology} needs the compiler for CUDA, which runs '
                       f'without a GPU, on Linux: {extras.command("gpu-plan")}')
    try:
      return gpus.topology(*target.gpus)
    except Exception as error:
      raise UsageError(f'--topology {target.topology}: the compiler for CUDA that is installed '
                       f'does not take it ({one_line(error, 160)}): '
                       f'{extras.command("gpu-plan")}') from error
  if not has_libtpu():
    raise UsageError(f'--topology {target.topology} needs the compiler for TPUs, which runs '
                     'anywhere on Linux: pip install libtpu')
  from jax.experimental import topologies
  try:
    return topologies.get_topology_desc(topology_name=target.topology, platform='tpu').devices
  except Exception as error:
    reason = one_line(error, 160)
    raise UsageError(f'libtpu knows no slice {target.topology} ({reason}): give one as v5e:8x8'
                     ) from error


if __name__ == '__main__':
  asked = json.load(sys.stdin)
  try:
    found = _compile({kind.__name__: kind for kind in get_args(Run)}[asked['kind']](**asked['run']),
                     Target(**asked['target']))
    print(json.dumps(dataclasses.asdict(found)))
  except UsageError as mistake:
    print(json.dumps({'mistake': str(mistake)}))
