"""A run of `cifar10_small.py`, which guides itself, distilled: 4 steps, at any scale from 1 to 4.

  adm train --config cifar10_small --workdir runs/cifar10_small
  adm train --config cifar10_small_student --workdir runs/guided --init-from runs/cifar10_small
  adm train --config cifar10_small_student --config.stage=few --workdir runs/student
    --init-from runs/guided
"""

from adm_jax.configs import cifar10_small

from adm_jax.training import student_recipes


def get_config(stage='guided', steps=4):
  """Builds the config.

  Args:
    stage: 'guided', then 'few' or 'halved'; see `student_recipes.of_stage`.
    steps: of the second stage.
  """
  teacher = cifar10_small.get_config()
  return student_recipes.of_stage(
      stage, student_recipes.network(teacher.task.network, (1.0, 4.0)), teacher.data,
      'runs/cifar10_small', steps,
      total_steps={'guided': 5000, 'few': 10_000, 'halved': 5000},
      learning_rate={'guided': 1e-3, 'few': 1e-3, 'halved': 5e-4},
      batch_size=64, microbatches=4, ema_rate=0.999, flip=True, save_every=250)
