"""Guidance: values that map a denoiser to a denoiser, folded in order; solvers know nothing of it.

The first of a tuple is next to the model: `(ClassifierFree(3.0), ByClassifier('classifier'))`.
"""

from adm_jax.sampling.guidance.base import Bound, Conditional, Context, Guidance, Run
from adm_jax.sampling.guidance.by_classifier import (
  ByClassifier,
  classifier_gradient,
  guided,
  normalized,
  shift,
)
from adm_jax.sampling.guidance.by_weaker_model import ByWeakerModel, autoguided
from adm_jax.sampling.guidance.classifier_free import ClassifierFree, classifier_free
from adm_jax.sampling.guidance.distilled import Distilled
from adm_jax.sampling.guidance.dynamic_threshold import DynamicThreshold, thresholded
from adm_jax.sampling.guidance.extrapolation import extrapolate
from adm_jax.sampling.guidance.of_file import OfFile
from adm_jax.sampling.guidance.scales import (
  Scale,
  ScaleOfEach,
  Scales,
  every_kth,
  scale_table,
  scales_of,
  within,
)

__all__ = [
    'Bound', 'ByClassifier', 'ByWeakerModel', 'ClassifierFree', 'Conditional', 'Context',
    'Distilled', 'DynamicThreshold', 'Guidance', 'OfFile', 'Run', 'Scale', 'ScaleOfEach',
    'Scales', 'autoguided',
    'classifier_free', 'classifier_gradient', 'every_kth', 'extrapolate', 'guided',
    'normalized', 'scale_table', 'scales_of', 'shift', 'thresholded', 'within']
