"""What chips can do, as their makers state it."""

import dataclasses

GIB = 2 ** 30
_T = 10 ** 12


@dataclasses.dataclass(frozen=True)
class Chip:
  """One device.

  Attributes:
    kind: what it calls itself (`jax.Device.device_kind`).
    memory: bytes.
    peak: dense bfloat16 FLOP per second.
    bandwidth: bytes per second, of its memory.
  """
  kind: str
  memory: int
  peak: float
  bandwidth: float


CHIPS = {chip.kind: chip for chip in (
    Chip('TPU v2', 8 * GIB, 22.5 * _T, 0.35 * _T),
    Chip('TPU v3', 16 * GIB, 61.5 * _T, 0.45 * _T),
    Chip('TPU v4', 32 * GIB, 275 * _T, 1.228 * _T),
    Chip('TPU v5 lite', 16 * GIB, 197 * _T, 0.819 * _T),
    Chip('TPU v5e', 16 * GIB, 197 * _T, 0.819 * _T),
    Chip('TPU v5', 95 * GIB, 459 * _T, 2.765 * _T),
    Chip('TPU v5p', 95 * GIB, 459 * _T, 2.765 * _T),
    Chip('TPU v6 lite', 32 * GIB, 918 * _T, 1.64 * _T),
    Chip('TPU v6e', 32 * GIB, 918 * _T, 1.64 * _T),
    Chip('NVIDIA H100 80GB HBM3', 80 * GIB, 989 * _T, 3.35 * _T),
    Chip('NVIDIA H100 PCIe', 80 * GIB, 756 * _T, 2.0 * _T),
    Chip('NVIDIA H200', 141 * 10**9, 989 * _T, 4.8 * _T),
    Chip('NVIDIA A100-SXM4-40GB', 40 * GIB, 312 * _T, 1.555 * _T),
    Chip('NVIDIA A100-SXM4-80GB', 80 * GIB, 312 * _T, 2.039 * _T),
    Chip('NVIDIA A100-PCIE-40GB', 40 * GIB, 312 * _T, 1.555 * _T),
    Chip('NVIDIA A100 80GB PCIe', 80 * GIB, 312 * _T, 1.935 * _T),
    Chip('NVIDIA L4', 24 * GIB, 121 * _T, 0.3 * _T),
    Chip('NVIDIA A10G', 24 * GIB, 70 * _T, 0.6 * _T),
)}


def peak(kind: str) -> float | None:
  """Returns a chip's FLOP per second by its kind; None where that is not known."""
  return CHIPS[kind].peak if kind in CHIPS else None


# XLA for TPUs cuts a batch of fewer large images into strips, and keeps float32 copies of them.
_LARGE, _ENOUGH = 256 * 256, 8


def too_few(kind: str, height: int, width: int, images: int) -> str | None:
  """A warning, where a chip of this kind is given so few images at once that each takes longer.

  By what the compiler expects, a ResBlock of 256 channels at 256 x 256 takes a v5e 10.6 ms with 4
  images, and 7.7 ms with 8.
  """
  if not kind.startswith('TPU') or height * width < _LARGE or images >= _ENOUGH:
    return None
  what = 'image' if images == 1 else 'images'
  return (f'each {kind} has {images} {what} of {height} x {width} at once, and is slow with fewer '
          f'than {_ENOUGH}: take larger batches, or fewer devices')
