"""A sampler as a file: StableHLO and weights, which another process runs without the model's code.

    OUT/sampler.stablehlo     the whole run as one program (`jax.export`), for any batch size
    OUT/weights.safetensors   its arguments
    OUT/description.json      what it is

`exported.load` reads it; so do jax.export.deserialize and the safetensors library alone.
"""

import dataclasses
import json
import pathlib
import shutil
from typing import Callable, Sequence

import flax
import jax
import numpy as np

from adm_jax import tensor_files
from adm_jax.errors import UsageError
from adm_jax.exported import DESCRIPTION, PROGRAM, WEIGHTS
from adm_jax.images import to_uint8
from adm_jax.pipeline import Pipeline
from adm_jax.sampling import image_keys, initial_noise, remembering_x0

PLATFORMS = ('cpu', 'cuda', 'rocm', 'tpu')


def program(adm: Pipeline) -> Callable:
  """(params {name: array}, seed u32, index i32[B], labels i32[B]) -> uint8[B H W C], all of a run.

  Image i is the one that `adm` makes with the same seed, index and label, on the same platform. A
  model without classes ignores the labels.
  """
  if adm.low_res_shape is not None:
    raise UsageError('an upsampler cannot be exported: export the model before it')
  # The fused kernel of one machine's GPUs would bind the program to them.
  denoiser = adm.sampler.denoiser
  networks = {name: network.clone(attention_implementation='xla')
              for name, network in (('model', denoiser.model), ('classifier', denoiser.classifier))
              if network is not None}
  sampler = dataclasses.replace(adm.sampler, denoiser=dataclasses.replace(denoiser, **networks))

  def run(params, seed, index, labels):
    keys = image_keys(jax.random.key(seed), index)
    x = initial_noise(keys, sampler.shape)
    (x, _) = sampler.advance(
        flax.traverse_util.unflatten_dict(params, sep='/'),
        (x, remembering_x0(sampler.solver).init(x)), sampler.steps, keys,
        labels if adm.num_classes is not None else None)
    return to_uint8(x)
  return run


def save(adm: Pipeline, out: pathlib.Path, platforms: Sequence[str]) -> None:
  """Writes the folder, which appears when it is whole.

  Raises:
    UsageError: `out` exists, an unknown platform, or flatbuffers is not installed.
  """
  if out.exists():
    raise UsageError(f'{out} exists: give the name of a new folder')
  unknown = [name for name in platforms if name not in PLATFORMS]
  if unknown or not platforms:
    raise UsageError(f'platform {", ".join(unknown) or "(none)"} is unknown: give some of '
                     f'{", ".join(PLATFORMS)}')
  params = flax.traverse_util.flatten_dict(adm.params, sep='/')
  batch, = jax.export.symbolic_shape('b')
  shapes = (jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params),
            jax.ShapeDtypeStruct((), np.uint32), jax.ShapeDtypeStruct((batch,), np.int32),
            jax.ShapeDtypeStruct((batch,), np.int32))
  exported = jax.export.export(jax.jit(program(adm)), platforms=list(platforms))(*shapes)
  try:
    content = exported.serialize()
  except ImportError as error:
    raise UsageError('exporting needs flatbuffers: pip install "adm_jax[export]"') from error
  part = out.with_name(f'.{out.name}.part')
  shutil.rmtree(part, ignore_errors=True)
  part.mkdir(parents=True)
  try:
    (part / PROGRAM).write_bytes(content)
    tensor_files.write(part / WEIGHTS, params)
    (part / DESCRIPTION).write_text(json.dumps({
        **adm.description, 'shape': adm.sampler.shape, 'num_classes': adm.num_classes,
        'evaluations': adm.sampler.num_steps, 'platforms': list(platforms)}, indent=1))
    part.rename(out)
  finally:
    shutil.rmtree(part, ignore_errors=True)
