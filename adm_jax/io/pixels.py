"""Images at the edges of the program: 8 bits outside, float32 in [-1, 1] inside."""

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


def to_float(image: Array) -> Array:
  """uint8 0..255 -> f32 [-1, 1]."""
  return jnp.asarray(image, jnp.float32) / 127.5 - 1


def to_uint8(x: Array) -> Array:
  """[-1, 1] -> 0..255, cut off, not rounded, as the reference's samples are."""
  return jnp.clip((x + 1) * 127.5, 0, 255).astype(jnp.uint8)


def shrink(x: Array, height: int, width: int) -> Array:
  """Averages areas: f32[B H W C] -> f32[B height width C]; the upsamplers' training inputs.

  As PyTorch's `interpolate(mode='area')`: where sides do not divide, neighboring areas share the
  pixels on their border.
  """
  batch, h, w, channels = x.shape
  if not h % height and not w % width:
    return x.reshape(batch, height, h // height, width, w // width, channels).mean(axis=(2, 4))
  # A mean is taken in float32, also where matrix products by default are not.
  return jnp.einsum('ih,bhwc,jw->bijc', _areas(h, height), x, _areas(w, width),
                    precision=jax.lax.Precision.HIGHEST)


def _areas(large: int, small: int) -> np.ndarray:
  """f32[S L]: row i averages pixels floor(i L / S) .. ceil((i + 1) L / S) - 1."""
  i, pixel = np.arange(small)[:, None], np.arange(large)[None]
  inside = (pixel >= i * large // small) & (pixel < -(-(i + 1) * large // small))
  return (inside / inside.sum(axis=1, keepdims=True)).astype(np.float32)
