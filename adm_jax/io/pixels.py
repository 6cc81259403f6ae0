"""Images at the edges of the program: 8 bits outside, float32 in [-1, 1] inside."""

import jax
import jax.numpy as jnp

from adm_jax.errors import UsageError

Array = jax.Array


def to_float(image: Array) -> Array:
  """uint8 0..255 -> f32 [-1, 1]."""
  return jnp.asarray(image, jnp.float32) / 127.5 - 1


def to_uint8(x: Array) -> Array:
  """[-1, 1] -> 0..255, cut off, not rounded, as the reference's samples are."""
  return jnp.clip((x + 1) * 127.5, 0, 255).astype(jnp.uint8)


def shrink(x: Array, height: int, width: int) -> Array:
  """Averages areas: f32[B H W C] -> f32[B height width C]; the upsamplers' training inputs."""
  batch, h, w, channels = x.shape
  check_divides((h, w), (height, width))
  return x.reshape(batch, height, h // height, width, w // width, channels).mean(axis=(2, 4))


def check_divides(large: tuple[int, ...], small: tuple[int, ...]) -> None:
  """Raises UsageError unless images of `large` (H, W, ...) average down to `small` (h, w)."""
  if any(a % b for a, b in zip(large, small)):
    raise UsageError(f'images of {large[0]} x {large[1]} cannot be averaged down to {small[0]} x '
                     f'{small[1]}: choose sides that divide')
