"""The networks give what the published implementation gives."""

import golden_files
import jax
import numpy as np
import pytest
from golden_networks import network

from adm_jax.sampling.guidance import classifier_gradient
from adm_jax.weights import openai

BOUND = 5e-5  # of the output's root mean square; 1.6e-5 is reached


def error_of_rms(got, want):
  return np.abs(got - want).max() / np.sqrt((want ** 2).mean())


def module_and_params(meta):
  module = network(meta)
  weights = golden_files.rule_weights(meta['tensors'], meta['seed'])
  return module, openai.params_from_state_dict(weights, module)


@golden_files.parametrize('unet_', 'superres_')
def test_unet_is_the_reference_s(golden):
  """Same weights and inputs, same output."""
  meta, arrays = golden_files.load(golden)
  module, params = module_and_params(meta)
  inputs = {name: arrays[name] for name in ('x', 't', 'y', 'low_res') if name in arrays}
  got = jax.jit(lambda params, inputs: module.apply({'params': params}, **inputs))(params, inputs)
  assert error_of_rms(got, arrays['out']) <= BOUND


@golden_files.parametrize('classifier_')
def test_classifier_and_its_gradient_are_the_reference_s(golden):
  """Same logits, and the same gradient of log p(label | x_t) in x_t, by which it guides."""
  meta, arrays = golden_files.load(golden)
  module, params = module_and_params(meta)

  @jax.jit
  def logits_and_gradient(params, x, t, labels):
    def classifier(x, t):
      return module.apply({'params': params}, x, t)
    return classifier(x, t), classifier_gradient(classifier, labels, 1.0)(x, t)

  logits, gradient = logits_and_gradient(params, arrays['x'], arrays['t'], arrays['label'])
  assert error_of_rms(logits, arrays['out']) <= BOUND
  assert error_of_rms(gradient, arrays['grad']) <= BOUND


@pytest.mark.parametrize('change', [
    {'attention_resolutions': [2, 4, 16]}, {'num_head_channels': -1}, {'num_heads_upsample': -1},
    {'use_checkpoint': False, 'use_fp16': False, 'dims': 2}])
def test_arguments_that_say_nothing_change_nothing(change):
  """Spelling out a default of the reference's, or a factor that never occurs, is no difference."""
  kwargs = {'image_size': 32, 'in_channels': 3, 'model_channels': 32, 'out_channels': 6,
            'num_res_blocks': 1, 'attention_resolutions': [2, 4], 'channel_mult': [1, 2, 2]}
  meta = {'network': 'UNetModel', 'kwargs': kwargs}
  assert network(meta | {'kwargs': kwargs | change}) == network(meta)
