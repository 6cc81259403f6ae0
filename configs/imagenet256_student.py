"""The published ADM on ImageNet 256 x 256 with its classifier, distilled: 4 steps, scales 0 to 4.

  adm train --config imagenet256_student --workdir runs/guided --init-from imagenet256
  adm train --config imagenet256_student --config.stage=few --workdir runs/student
    --init-from runs/guided

Updates and the teacher's rising steps are those of Heek et al. (2024); the batch is smaller.
"""

from adm_jax.configs import imagenet256

from adm_jax.training import student_recipes


def get_config(stage='guided', steps=4):
  """Builds the config.

  Args:
    stage: 'guided', then 'few' or 'halved'; see `student_recipes.of_stage`.
    steps: of the second stage.
  """
  teacher = imagenet256.get_config()
  return student_recipes.of_stage(
      stage, student_recipes.network(teacher.task.network, (0.0, 4.0)), teacher.data,
      'imagenet256', steps, classifier='imagenet256-classifier',
      total_steps={'guided': 50_000, 'few': 200_000, 'halved': 50_000},
      learning_rate={'guided': 1e-4, 'few': 1e-4, 'halved': 5e-5},
      batch_size=256, ema_rate=0.9999, flip=True, num_threads=16, log_every=100,
      save_every=5000, keep=3)
