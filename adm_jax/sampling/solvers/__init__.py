"""One step of sampling each.

Like an optax transformation, a solver is a pair of pure functions. `step` sees the model only as a
denoiser and its place in the process only as a `Step`, so that a new solver is one function here;
multistep methods keep earlier predictions in `memory`.

The denoiser is asked at steps that the network was trained on, never between them: where a method
wants another noise level, such as halfway through a step, it takes the nearest, as EDM does with
ADM's networks (Karras et al. 2022, appendix C.3.4), and computes with that level's own sigma. So
the formulas here are those of uneven steps, and rounding costs no order of convergence.

The methods beyond the reference's two integrate the probability flow in EDM's coordinates,
x / sqrt(alpha_bar), where a prediction x_0 that does not change over a step carries x straight:

    x' = ratio x + (1 - ratio) x_0,    ratio = sigma' / sigma = exp(-h)

h is the step in lambda = -log sigma. Learned variances do not enter. Guidance does by way of x_0
and eps, as in DDIM.
"""

from adm_jax.sampling.solvers.ancestral import ancestral
from adm_jax.sampling.solvers.base import Solver, num_evaluations
from adm_jax.sampling.solvers.ddim import ddim
from adm_jax.sampling.solvers.dpm import dpm_multistep, dpm_singlestep
from adm_jax.sampling.solvers.edm import churned, heun
from adm_jax.sampling.solvers.unipc import unipc
from adm_jax.sampling.steps import Step, ascend, descend, to_clean, walk

__all__ = ['Solver', 'Step', 'ancestral', 'ascend', 'churned', 'ddim', 'descend', 'dpm_multistep',
           'dpm_singlestep', 'heun', 'num_evaluations', 'to_clean', 'unipc', 'walk']
