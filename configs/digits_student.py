"""The demo's guided U-Net, distilled: digits in 4 steps, at any scale from 0 to 4.

  adm demo --out runs/demo
  adm train --config digits_student --workdir runs/guided --init-from runs/demo/unet
  adm train --config digits_student --config.stage=few --workdir runs/student
    --init-from runs/guided
  adm sample --model runs/student --scale 2 --classes 0-9 --num 40 --grid --out runs/digits

`adm distill` does the same in one command.
"""

from adm_jax.configs import digits_unet

from adm_jax.config import call
from adm_jax.data.digits import digits
from adm_jax.training import student_recipes


def get_config(stage='guided', steps=4):
  """Builds the config.

  Args:
    stage: 'guided', then 'few' or 'halved'; see `student_recipes.of_stage`.
    steps: of the second stage.
  """
  teacher = digits_unet.get_config().task.network
  return student_recipes.of_stage(
      stage, student_recipes.network(teacher, (0.0, 4.0), num_classes=10), call(digits),
      'runs/demo/unet', steps, classifier='runs/demo/classifier',
      total_steps={'guided': 3000, 'few': 4000, 'halved': 1000},
      # 64 steps of DDIM are as near to the digits as any more are.
      few={'teacher_steps': (16, 64), 'power': 0.5},
      learning_rate={'guided': 1e-3, 'few': 1e-3, 'halved': 5e-4},
      batch_size=64, ema_rate=0.995)
