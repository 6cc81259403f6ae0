"""Settings that every test runs under."""

import jax

# [B] against [B H W C] must not broadcast along channels without a word.
jax.config.update('jax_numpy_rank_promotion', 'raise')
