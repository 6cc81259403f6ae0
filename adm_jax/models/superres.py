"""The upsampler: a U-Net that also sees a smaller version of the image (`SuperResModel`)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from adm_jax.errors import UsageError
from adm_jax.models.unet import UNet

Array = jax.Array


class SuperRes(nn.Module):
  """A U-Net on x_t with the bilinearly enlarged `low_res` beside it on the channel axis.

  Attributes:
    unet: the U-Net, whose `in_channels` are therefore twice the image's.
  """
  unet: UNet

  @property
  def num_classes(self) -> int | None:
    return self.unet.num_classes

  @nn.compact
  def __call__(self, x: Array, t: Array, y: Array | None = None, *, low_res: Array,
               dropout_keys: Array | None = None) -> Array:
    """x [B H W C], t [B], y i32[B], low_res f32[B h w C] in [-1, 1] -> f32[B H W out_channels].

    `dropout_keys` as in `UNet`.
    """
    if low_res.shape[0] != x.shape[0] or low_res.shape[-1] != x.shape[-1]:
      raise UsageError(f'low_res of shape {low_res.shape} does not go with images of {x.shape}: '
                       'give one for each image, with the same channels')
    shape = (*x.shape[:3], low_res.shape[-1])
    enlarged = jax.image.resize(low_res.astype(jnp.float32), shape, 'bilinear')
    return self.unet(jnp.concatenate([x, enlarged.astype(x.dtype)], axis=-1), t, y,
                     dropout_keys=dropout_keys)
