"""ADM's networks, as Flax linen modules."""

from adm_jax.models.classifier import Classifier
from adm_jax.models.superres import SuperRes
from adm_jax.models.unet import UNet

__all__ = ['Classifier', 'SuperRes', 'UNet']
