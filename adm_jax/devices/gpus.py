"""GPUs that nobody here has: what XLA's compiler for CUDA asks of a device, from published figures.

    topology('h100', 8)   # eight H100s of one host; needs jax-cuda13-plugin and no GPU

XLA compiles for a device that is absent if it is told a `GpuTargetConfig`: how many multiprocessors
there are, how much each of them holds, how fast memory is. NVIDIA's data sheets and its table of
compute capabilities say that. What only a card can answer is missing: which algorithm of a
convolution is fastest, so that none is chosen and none has a workspace.
"""

import dataclasses
import importlib.metadata
from typing import Any

from adm_jax.devices.chips import CHIPS

_KIB = 2 ** 10


@dataclasses.dataclass(frozen=True)
class Gpu:
  """A GPU as its maker describes it.

  Attributes:
    kind: its name in `chips.CHIPS`, which has its memory and how fast that is.
    compute_capability: as 9.0, by which programs choose what runs there.
    multiprocessors: how many.
    shared_memory: bytes of a multiprocessor; a block may have all but 1 KiB.
    l2: bytes of the cache that they share.
    fpus: float32 units of a multiprocessor.
    clock: GHz, boosted, so that 2 * clock * fpus * multiprocessors is its float32 peak.
  """
  kind: str
  compute_capability: float
  multiprocessors: int
  shared_memory: int
  l2: int
  fpus: int
  clock: float


GPUS = {
    'h100': Gpu('NVIDIA H100 80GB HBM3', 9.0, multiprocessors=132, shared_memory=228 * _KIB,
                l2=50 * _KIB**2, fpus=128, clock=1.98),
    'a100': Gpu('NVIDIA A100-SXM4-80GB', 8.0, multiprocessors=108, shared_memory=164 * _KIB,
                l2=40 * _KIB**2, fpus=64, clock=1.41),
}


def target_config(gpu: Gpu) -> str:
  """Returns the text of a `GpuTargetConfig` with CUDA 13.0 and cuDNN 9.10.

  Limits that all of these GPUs share (of blocks, threads and registers) are CUDA's. All of the 64
  KiB registers may belong to one block.
  """
  chip = CHIPS[gpu.kind]
  major, minor = str(gpu.compute_capability).split('.')
  return f"""
    platform_name: "CUDA"
    device_description_str: "{gpu.kind}"
    runtime_version {{ major: 13 minor: 0 patch: 0 }}
    gpu_device_info {{
      name: "{gpu.kind}"
      device_vendor: "NVIDIA Corporation"
      cuda_compute_capability {{ major: {major} minor: {minor} }}
      core_count: {gpu.multiprocessors}
      fpus_per_core: {gpu.fpus}
      clock_rate_ghz: {gpu.clock}
      device_memory_size: {chip.memory}
      memory_bandwidth: {round(chip.bandwidth)}
      l2_cache_size: {gpu.l2}
      shared_memory_per_core: {gpu.shared_memory}
      shared_memory_per_block: {48 * _KIB}
      shared_memory_per_block_optin: {gpu.shared_memory - _KIB}
      registers_per_core_limit: {64 * _KIB}
      registers_per_block_limit: {64 * _KIB}
      threads_per_warp: 32
      threads_per_block_limit: 1024
      threads_per_core_limit: 2048
      thread_dim_limit_x: 1024
      thread_dim_limit_y: 1024
      thread_dim_limit_z: 64
      block_dim_limit_x: {2**31 - 1}
      block_dim_limit_y: {2**16 - 1}
      block_dim_limit_z: {2**16 - 1}
      device_address_bits: 64
      driver_version: "13.0.0"
      runtime_version: "13.0.0"
      compile_time_toolkit_version: "13.0.0"
      dnn_version: "9.10.0"
    }}"""


def compute_capability(kind: str) -> float | None:
  """Returns that of a GPU by JAX's name: an absent device does not say it. None if unknown here."""
  return next((gpu.compute_capability for gpu in GPUS.values() if gpu.kind == kind), None)


def has_compiler() -> bool:
  """Whether XLA's compiler for CUDA is installed."""
  try:
    return bool(importlib.metadata.version('jax-cuda13-plugin'))
  except importlib.metadata.PackageNotFoundError:
    return False


def topology(name: str, num_devices: int) -> list[Any]:
  """Returns so many devices of one host to compile for; they cannot run anything.

  Args:
    name: one of `GPUS`.
    num_devices: at least 1.
  """
  from jax.experimental import topologies
  # Partitions x hosts x devices.
  return list(topologies.get_topology_desc(
      platform='cuda', target_config=target_config(GPUS[name]),
      topology=f'1x1x{num_devices}').devices)
