"""Settings of XLA's compilers that programs are compiled with, each with what speaks for it.

What XLA_FLAGS names is left to it, which switches a setting off or changes it:

    XLA_FLAGS=--xla_gpu_dot_merger_threshold_mb=32 adm sample ...   # XLA's default

Not set here, since only a card can judge it: --xla_gpu_enable_command_buffer=+CONVOLUTION lets
convolutions into CUDA graphs. Without it each cuts a graph in two; with it a ResBlock is one.
"""

import os

from adm_jax.devices.target import Target

# For forward passes on NVIDIA's GPUs.
_FORWARD = {
    # XLA merges products of one array, as those of queries, keys and values, and copies what it
    # then has to cut: an attention block of 384 channels at 32 x 32 (batch 8, H100) moves 168 MB so
    # and 105 MB without. In training the merged products have the cheaper gradients.
    'xla_gpu_dot_merger_threshold_mb': '0',
}


def of_sampling(target: Target) -> dict[str, str]:
  """For `jax.jit(compiler_options=...)` of a sampler's program."""
  given = os.environ.get('XLA_FLAGS', '')
  if target.compute_capability is None:
    return {}
  return {name: value for name, value in _FORWARD.items() if f'--{name}=' not in given}
