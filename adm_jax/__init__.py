"""ADM ("Diffusion Models Beat GANs on Image Synthesis", 2021) in JAX and Flax.

Nothing is imported here, so that each part costs only what it needs: see the README's map.
"""

__version__ = '0.1.0'
