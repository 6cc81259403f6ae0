"""What runs that distill share: the student's network, made of its teacher's, and both stages.

`configs/` has a file per student; `adm distill` makes one of any teacher.
"""

from typing import Any

from adm_jax import networks
from adm_jax.config import ConfigDict, call
from adm_jax.data.loading import Loader
from adm_jax.errors import UsageError
from adm_jax.process.diffusion import Eps, FixedSmall, TemperedEps, V
from adm_jax.process.timestep_samplers import uniform
from adm_jax.training import distillation
from adm_jax.training.loop import Run
from adm_jax.training.state import adamw


def network(teacher: ConfigDict, scales: tuple[float, float],
            num_classes: int | None = None) -> ConfigDict:
  """The student of a teacher's network: told a scale, and predicting what its teacher does.

  So it begins with its head too. Where the teacher predicts eps, that is read as `TemperedEps`;
  of one that predicts neither eps nor v, it predicts v.

  Args:
    teacher: a call of `networks.unet`.
    scales: (low, high) of the guidance.
    num_classes: of the classifier that guides a teacher without classes.

  Raises:
    UsageError: the teacher is no U-Net.
  """
  if teacher.get('fn') is not networks.unet:
    raise UsageError('students are made of a U-Net that makes images: for a network of your own, '
                     'write a config with networks.student or your own Network')
  config = teacher.copy_and_resolve_references()
  module, diffusion = config.module, config.diffusion
  module.out_channels, module.takes_scale, module.dropout = module.in_channels, True, 0.0
  if module.num_classes is None:
    module.num_classes = num_classes
  mean = Eps if diffusion.get('mean') is None else diffusion.mean.fn
  if mean not in (TemperedEps, V):
    diffusion.mean = call(TemperedEps if mean is Eps else V)
  diffusion.variance = call(FixedSmall)
  return call(networks.student, module=module, diffusion=diffusion, scales=tuple(scales),
              steps=None, with_null_label=config.with_null_label)


def of_stage(stage: str, student: ConfigDict, data: ConfigDict, teacher: str, steps: int, *,
             total_steps: dict[str, int], learning_rate: dict[str, float],
             classifier: str | None = None, few: dict[str, Any] | None = None,
             **kwargs: Any) -> ConfigDict:
  """The run of one stage, for a config that has them all.

  Stages are 'guided', one evaluation for a guided one; then 'few', few steps for many, or, in its
  place and again and again, 'halved', a step for two. The first starts from the teacher, 'few' from
  runs/guided, 'halved' from runs/student_STEPS of twice the steps: --config.task.teacher=DIR names
  others, and --init-from the same.

  Args:
    stage: which.
    student: of `network`.
    data: what all see noised.
    teacher: of the first stage, by its name.
    steps: of the second.
    total_steps: of training, by stage.
    learning_rate: at the start, by stage.
    classifier: what guides the teacher; None: it guides itself.
    few: more arguments of `few_steps`.
    kwargs: of `_run`, and more arguments of `Run`.

  Raises:
    UsageError: no such stage.
  """
  if stage not in total_steps:
    raise UsageError(f'stage={stage}: give one of {", ".join(total_steps)}')
  kwargs.update(total_steps=total_steps[stage], learning_rate=learning_rate[stage])
  if stage == 'guided':
    return guided(student, data, teacher, classifier, **kwargs)
  if stage == 'few':
    return few_steps(student, data, 'runs/guided', steps, **kwargs, **(few or {}))
  return half_the_steps(student, data, f'runs/student_{2 * steps}', steps, **kwargs)


def guided(student: ConfigDict, data: ConfigDict, teacher: str, classifier: str | None = None,
           weaker: str | None = None, **kwargs: Any) -> ConfigDict:
  """Stage 1, which is to start from the teacher's weights.

  Args:
    student: of `network`.
    data: what both see noised.
    teacher: by its name, and what guides it.
    classifier: see `distillation.guided`.
    weaker: likewise.
    kwargs: of `_run`, and more arguments of `Run`.
  """
  task = call(distillation.guided, network=student, teacher=teacher, classifier=classifier,
              weaker=weaker)
  return _run(student, data, task, **kwargs)


def few_steps(student: ConfigDict, data: ConfigDict, teacher: str, steps: int, *,
              total_steps: int, teacher_steps: tuple[int, int] = (64, 1280), power: float = 1.0,
              **kwargs: Any) -> ConfigDict:
  """Stage 2, which is to start from the weights of stage 1.

  Args:
    student: of `network`.
    data: as of `guided`.
    teacher: the work directory of stage 1.
    steps: in how many the student is to make images.
    total_steps: the teacher's steps rise through the first half.
    teacher_steps: from how many to how many: the paper's for photographs.
    power: of the weights of the loss, see `distillation.consistency`.
    kwargs: of `_run`, and more arguments of `Run`.
  """
  student = _of_steps(student, steps)
  task = call(distillation.consistency, network=student, teacher=teacher,
              anneal_steps=max(1, total_steps // 2), first=teacher_steps[0],
              last=teacher_steps[1], power=power)
  return _run(student, data, task, total_steps=total_steps, **kwargs)


def half_the_steps(student: ConfigDict, data: ConfigDict, teacher: str, steps: int,
                   **kwargs: Any) -> ConfigDict:
  """Progressive distillation, in place of stage 2: from twice as many steps.

  Args:
    student: of `network`.
    data: as of `guided`.
    teacher: the work directory of the student of twice the steps, or, for the first, of stage 1.
    steps: in how many the student is to make images.
    kwargs: of `_run`, and more arguments of `Run`.
  """
  student = _of_steps(student, steps)
  return _run(student, data, call(distillation.progressive, network=student, teacher=teacher),
              **kwargs)


def _of_steps(student: ConfigDict, steps: int) -> ConfigDict:
  student = student.copy_and_resolve_references()
  student.steps = (steps,)
  return student


def _run(student: ConfigDict, data: ConfigDict, task: ConfigDict, *, batch_size: int,
         total_steps: int, learning_rate: float, ema_rate: float = 0.999, flip: bool = False,
         num_threads: int = 1, **kwargs: Any) -> ConfigDict:
  """Adam with a rate that falls to 0, without dropout."""
  return call(Run, **{
      'data': data, 'task': task,
      'timestep_sampler': call(uniform, num_steps=_num_steps(student.diffusion.schedule)),
      'optimizer': call(adamw, learning_rate=learning_rate, linear_decay_steps=total_steps,
                        clip_norm=1.0),
      'loader': call(Loader, flip=flip, num_threads=num_threads), 'batch_size': batch_size,
      'total_steps': total_steps, 'ema_rates': (ema_rate,), 'ema_warmup': True, 'log_every': 50,
      'save_every': 500, **kwargs})


def _num_steps(schedule: ConfigDict) -> int:
  """Of the process, which a respacing to all its steps may wrap."""
  return _num_steps(schedule.schedule) if 'schedule' in schedule else schedule.num_steps
