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
from adm_jax.errors import UsageError
from adm_jax.training import student_recipes


def get_config(stage='guided', steps=4):
  """Builds the config.

  Args:
    stage: 'guided', one evaluation for a guided one, or then 'few', a few steps for many.
    steps: of the second stage.
  """
  network = student_recipes.network(digits_unet.get_config().task.network, (0.0, 4.0),
                                    num_classes=10)
  shared = dict(batch_size=64, learning_rate=1e-3, ema_rate=0.995)
  if stage == 'guided':
    return student_recipes.guided(network, call(digits), 'runs/demo/unet', 'runs/demo/classifier',
                                  total_steps=3000, **shared)
  if stage == 'few':
    return student_recipes.few_steps(network, call(digits), 'runs/guided', steps,
                                     total_steps=4000, **shared)
  raise UsageError(f'stage={stage}: give guided or few')
