"""How long a compiled program should take, from what its compiler says; nothing here is timed.

GPUs: a kernel that multiplies takes what its arithmetic or its bytes take, whichever is longer, and
every other kernel what its bytes take, at the shares of the published figures that such kernels
reach. Launches, gaps between kernels and caches are left out.

TPUs: their compiler prints cycles for every instruction. They agree with its final schedules for
convolutions of 3 x 3 and 128 channels or more, and are several times too many for the rest; what
they are divided by was read off such schedules for a v5e. An instruction takes these cycles or its
bytes, whichever is longer. Good to about a quarter, and rather too short.

A Pallas kernel has no cycles, and takes its stated operations at the share of the peak that JAX's
flash attention has by its schedule on a v5e (1,024 tokens, heads of 64: 5,146 bundles for each of
192 blocks of 0.27 GFLOP).

Transfers between devices are left out on both.
"""

import math
from typing import Iterable

from adm_jax.devices.chips import CHIPS, Chip
from adm_jax.devices.gpus import GPUS
from adm_jax.plan.kernels import Kernel

# Of the peak and of the bandwidth of a GPU: 790 TFLOP/s and 3 TB/s of an H100.
ARITHMETIC, TRAFFIC = 0.8, 0.9
# GHz of a TPU's cycles. The v5e's schedules were compared; the others are published.
_CLOCKS = {'TPU v4': 1.05, 'TPU v5 lite': 1.5, 'TPU v5e': 1.5, 'TPU v5': 1.75, 'TPU v5p': 1.75,
           'TPU v6 lite': 1.75, 'TPU v6e': 1.75}
# Printed cycles over scheduled ones.
_EXACT, _PRODUCT, _REST = 1.0, 2.3, 7.0
# Of a TPU's peak, by a kernel without cycles.
_PALLAS = 0.4


def seconds(kernels: Iterable[Kernel], kind: str, steps: int = 1) -> float | None:
  """Returns the estimated seconds of one of `steps` steps; None for a device of unknown speed.

  Args:
    kernels: of the compiled program.
    kind: the device's, by JAX's name.
    steps: that a run of the program takes.
  """
  if kind not in CHIPS:
    return None
  if kind in _CLOCKS:
    return math.fsum(k.times * _on_tpu(k, CHIPS[kind], _CLOCKS[kind]) for k in kernels) / steps
  if not kind.startswith('NVIDIA'):
    return None
  return math.fsum(k.times * of_gpu(k, CHIPS[kind]) for k in kernels) / steps


def of_gpu(kernel: Kernel, chip: Chip) -> float:
  """Returns the estimated seconds of one launch."""
  by_bytes = kernel.bytes / (TRAFFIC * chip.bandwidth)
  return max(by_bytes, kernel.flops / (ARITHMETIC * _peak(kernel.dtype, chip)))


def _peak(dtype: str, chip: Chip) -> float:
  """FLOP per second; float32 runs on the ordinary units, since the networks ask for exactness."""
  gpu = next((gpu for gpu in GPUS.values() if gpu.kind == chip.kind), None)
  if dtype != 'f32' or gpu is None:
    return chip.peak
  return 2e9 * gpu.multiprocessors * gpu.fpus * gpu.clock


def _on_tpu(kernel: Kernel, chip: Chip, clock: float) -> float:
  multiplies = kernel.kind in ('convolutions', 'products')
  too_many = _EXACT if kernel.window else _PRODUCT if multiplies else _REST
  computing = (kernel.flops / (_PALLAS * chip.peak) if kernel.cycles is None
               else kernel.cycles / too_many / (clock * 1e9))
  return max(computing, kernel.bytes / chip.bandwidth)
