"""The model `fashion`, which guides itself, distilled: clothes in 4 steps, scales 1 to 3.

  adm train --config fashion_student --workdir runs/guided --init-from fashion
  adm train --config fashion_student --config.stage=few --workdir runs/student
    --init-from runs/guided
  adm sample --model runs/student --scale 2 --classes 0-9 --num 40 --grid --out runs/clothes
"""

from adm_jax.configs import fashion

from adm_jax.training import student_recipes


def get_config(stage='guided', steps=4):
  """Builds the config.

  Args:
    stage: 'guided', then 'few' or 'halved'; see `student_recipes.of_stage`.
    steps: of the second stage.
  """
  teacher = fashion.get_config()
  return student_recipes.of_stage(
      stage, student_recipes.network(teacher.task.network, (1.0, 3.0)), teacher.data, 'fashion',
      steps,
      total_steps={'guided': 2000, 'few': 4000, 'halved': 2000},
      # Many small batches, and few of the teacher's steps: what hours on two CPU cores can feed.
      few={'teacher_steps': (16, 64), 'power': 0.5},
      learning_rate={'guided': 1e-3, 'few': 1e-3, 'halved': 5e-4},
      batch_size=32, ema_rate=0.998, log_every=50, save_every=250)
