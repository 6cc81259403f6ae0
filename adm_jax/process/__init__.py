"""The diffusion process: schedules, q and p, losses, likelihood; imports jax and numpy only."""
