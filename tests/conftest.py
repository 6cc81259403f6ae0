"""Settings that every test runs under."""

import os
import tempfile

# What one test compiles, others and the processes they start need not.
_compiled = tempfile.TemporaryDirectory(prefix='adm_jax_tests_')
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', _compiled.name)
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.3')

# A test runs a program once or twice, and LLVM would take twice as long to make it fast. Processes
# that tests start inherit this; what the environment says comes later, and is obeyed.
os.environ['XLA_FLAGS'] = f"--xla_backend_optimization_level=0 {os.environ.get('XLA_FLAGS', '')}"

import jax  # noqa: E402

# [B] against [B H W C] must not broadcast along channels without a word.
jax.config.update('jax_numpy_rank_promotion', 'raise')
