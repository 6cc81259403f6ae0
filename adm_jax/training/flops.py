"""The arithmetic of a training step."""

import jax

from adm_jax.devices import flops
from adm_jax.training.tasks import Task


def of_step(task: Task, batch_size: int) -> float:
  """Returns the FLOP of a training step: all that its task evaluates, and the way back.

  The way back takes twice as much as the one evaluation of the task's network that is
  differentiated; teachers, and what a student says of its own target, are evaluated only. What
  rematerialization computes again is not counted, as is usual for utilizations.

  Args:
    task: what is trained.
    batch_size: of the whole step.
  """
  struct = jax.ShapeDtypeStruct
  # One example is enough: nothing in the networks depends on others.
  examples = {'image': struct((1, *task.network.image_shape), 'uint8'),
              **{name: struct((1,), 'int32') for name in ('label', 't', 'step')},
              'key': jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))}
  evaluated = flops.count(
      lambda params, frozen, examples: task.terms(params, frozen, examples, None),
      task.network.abstract_params(), task.frozen, examples)
  return batch_size * (evaluated + 2 * flops.count(task.network.init, jax.random.key(0)))
