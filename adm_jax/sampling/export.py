"""A sampler as a file: StableHLO and weights, which another process runs without the model's code.

    OUT/sampler.stablehlo     the whole run as one program (`jax.export`), for any batch size
    OUT/weights.safetensors   its arguments
    OUT/description.json      what it is

`exported.load` reads it; so do jax.export.deserialize and the safetensors library alone.
"""

import dataclasses
import importlib.util
import json
import pathlib
from typing import Any, Callable, Sequence

import flax
import jax
import numpy as np

from adm_jax.devices.target import ANY, Target, tracing_for
from adm_jax.errors import UsageError
from adm_jax.io import extras
from adm_jax.io.files import folder_written_whole
from adm_jax.io.pixels import to_uint8
from adm_jax.sampling.exported import DESCRIPTION, PROGRAM, WEIGHTS
from adm_jax.sampling.guidance import Scales, distilled
from adm_jax.sampling.pipeline import Pipeline
from adm_jax.sampling.sampler import image_keys, initial_noise, remembering_x0
from adm_jax.weights import safetensors_files

PLATFORMS = ('cpu', 'cuda', 'rocm', 'tpu')


def program(adm: Pipeline, platforms: Sequence[str] = PLATFORMS) -> Callable:
  """Returns the whole of a run as one function.

  Image i is the one that `adm` makes with the same seed, index and label, on the same platform.

  Args:
    adm: the run.
    platforms: what it is for. A program for one kind of device may be made for it; the kernels of
      one machine's GPUs it never has.

  Returns:
    (weights {name: array}, scales {role: f32[S]}, seed u32, index i32[B], labels i32[B]) ->
    uint8[B H W C]. `scales` are those of each kind of guidance, one for each index of the
    schedule; a model without classes ignores the labels.
  """
  if adm.low_res_shape is not None:
    raise UsageError('an upsampler cannot be exported: export the model before it')
  sampler, known = dataclasses.replace(adm.sampler, mesh=None), adm.params['scales']
  kinds = {'gpu' if name in ('cuda', 'rocm') else name for name in platforms}
  target = Target(*kinds) if len(kinds) == 1 else ANY

  def run(weights, scales, seed, index, labels):
    params = flax.traverse_util.unflatten_dict(weights, sep='/')
    params['scales'] = {role: dataclasses.replace(known[role], values=values)
                        for role, values in scales.items()}
    keys = image_keys(jax.random.key(seed), index)
    x = initial_noise(keys, sampler.shape)
    with tracing_for(target):
      (x, _) = sampler.advance(
          params, (x, remembering_x0(sampler.solver).init(x)), sampler.steps, keys,
          labels if adm.num_classes is not None else None)
    return to_uint8(x)
  return run


def check(out: pathlib.Path, platforms: Sequence[str]) -> None:
  """What can be said before a model is loaded.

  Raises:
    UsageError: `out` exists, an unknown platform, or flatbuffers is not installed.
  """
  if out.exists():
    raise UsageError(f'{out} exists: give the name of a new folder')
  unknown = [name for name in platforms if name not in PLATFORMS]
  if unknown or not platforms:
    raise UsageError(f'platform {", ".join(unknown) or "(none)"} is unknown: give some of '
                     f'{", ".join(PLATFORMS)}')
  if importlib.util.find_spec('flatbuffers') is None:
    raise UsageError(f'exporting needs flatbuffers: {extras.command("export")}')


def save(adm: Pipeline, out: str | pathlib.Path, platforms: Sequence[str]) -> None:
  """Writes the folder, which appears when it is whole.

  Raises:
    UsageError: as `check`.
  """
  out = pathlib.Path(out)
  check(out, platforms)
  weights = flax.traverse_util.flatten_dict(adm.weights, sep='/')
  scales = {role: scale.values for role, scale in adm.params['scales'].items()}
  batch, = jax.export.symbolic_shape('b')
  shapes = (*jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype),
                          (weights, scales)),
            jax.ShapeDtypeStruct((), np.uint32), jax.ShapeDtypeStruct((batch,), np.int32),
            jax.ShapeDtypeStruct((batch,), np.int32))
  exported = jax.export.export(jax.jit(program(adm, platforms)), platforms=list(platforms))(*shapes)
  with folder_written_whole(out) as part:
    (part / PROGRAM).write_bytes(exported.serialize())
    safetensors_files.write(part / WEIGHTS, weights)
    (part / DESCRIPTION).write_text(json.dumps({
        **adm.description, 'shape': adm.sampler.shape, 'num_classes': adm.num_classes,
        'evaluations': adm.sampler.num_evaluations, 'platforms': list(platforms),
        'scales': {role: _described(adm, role, scale)
                   for role, scale in adm.params['scales'].items()}}, indent=1))


def _described(adm: Pipeline, role: str, scale: Scales) -> dict[str, Any]:
  """A scale as JSON values: `off`, where none of it is no guidance; `range`, where there is one."""
  taught = adm.run.model.network.scales if role == distilled.ROLE else None
  return {'off': None if np.isnan(scale.off) else scale.off,
          'values': np.asarray(scale.values).tolist(),
          **({} if taught is None else {'range': list(taught)})}
