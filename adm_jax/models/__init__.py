"""ADM's networks, and the judge of their images, as Flax linen modules."""

from adm_jax.models.classifier import Classifier
from adm_jax.models.judge import Judge
from adm_jax.models.superres import SuperRes
from adm_jax.models.unet import UNet

__all__ = ['Classifier', 'Judge', 'SuperRes', 'UNet']
