"""Training: tasks, the pure step, the loop and its checkpoints."""
