"""What a plan says to a person."""

from adm_jax.devices.chips import CHIPS, GIB, too_few
from adm_jax.plan.needs import Needs


def lines(needs: Needs, microbatches: int = 1) -> list[str]:
  """Returns lines that say what a run needs, whether that fits, and what would make it slow."""
  gib = [(name, getattr(needs, name) / GIB)
         for name in ('state', 'batch', 'activations', 'total')]
  what = {'Training': 'a step', 'Evaluation': "a batch's features by Inception"}.get(
      needs.run, f'a batch from noise to images, {needs.evaluations} evaluations')
  result = [
      f'{needs.num_devices} x {needs.device_kind}, fsdp={needs.fsdp}: compiled in '
      f'{needs.compile_seconds:.0f} s',
      f'parameters: {needs.parameters:,}',
      f'{what}: {needs.flops / 1e12:.4g} TFLOP, {needs.batch_size} images',
      f'a device{" at least" if needs.spare else ""}: '
      + ', '.join(f'{name} {value:.3g} GiB' for name, value in gib)]
  if needs.memory is not None:
    margin = (f', of which {needs.spare / GIB:.0f} stay free for what is chosen on the card'
              if needs.spare else '')
    result.append(f'it has {needs.memory / GIB:.0f} GiB{margin}: '
                  + ('it fits' if needs.fits else 'too little'))
  if needs.seconds is not None:
    result.append(estimated(needs))
  if needs.run != 'Evaluation':  # Inception's images are made one size first
    at_once = needs.batch_size // needs.num_devices // microbatches
    result += filter(None, [too_few(needs.device_kind, needs.height, needs.width, at_once)])
  return result


def estimated(needs: Needs) -> str:
  """How long a step or a batch should take by what the compiler made of it, beside its floors."""
  chip = CHIPS[needs.device_kind]
  what = 'a step' if needs.run == 'Training' else 'a batch'
  arithmetic = needs.flops / needs.num_devices / chip.peak
  return (f'{what}, estimated and not timed: {needs.seconds:.3g} s, without transfers between '
          f'devices; at least {arithmetic:.3g} s by arithmetic, {needs.moved / chip.bandwidth:.3g} '
          f's by the {needs.moved / 1e9:.4g} GB that {needs.launches:,} kernels move')


def hours(needs: Needs, utilization: float, total_steps: int | None = None) -> str:
  """How long it takes at a share of the peak: `total_steps` of training, or images.

  Of Inception, which computes in float32 and far from any peak, as long as is estimated.
  """
  if needs.run == 'Evaluation':
    return ('how long that takes is estimated for a --topology' if needs.seconds is None
            else _images(needs, needs.seconds, 'as estimated'))
  if needs.peak is None:
    return f'how fast a {needs.device_kind} is at most is not known here'
  seconds = needs.flops / (needs.peak * needs.num_devices * utilization)
  if needs.run == 'Training':
    return (f'{total_steps:,} steps at {utilization:.0%} of peak: {seconds:.3g} s per step, '
            f'{total_steps * seconds / 3600:,.1f} hours')
  return _images(needs, seconds, f'at {utilization:.0%} of peak')


def _images(needs: Needs, seconds: float, how: str) -> str:
  """How many images come of batches that take so many seconds."""
  whole = 50_000 * seconds / needs.batch_size
  long = f'{whole / 3600:,.1f} hours' if whole >= 3600 else f'{whole:.3g} s'
  return (f'{how}: {seconds:.3g} s per batch, {needs.batch_size / seconds:.4g} images/s, 50,000 '
          f'images in {long}')


def advice(needs: Needs, remat: str | None, microbatches: int = 1,
           remat_key: str = 'task.network.module.remat') -> str:
  """What to change first so that a run fits; state is split, activations are cut or recomputed.

  `remat` is the trained network's, which its config has at `remat_key`; None for sampling.
  """
  rows = needs.batch_size // needs.num_devices // microbatches
  if needs.state > needs.memory / 2 and needs.fsdp < needs.num_devices:
    return (f'the state takes {needs.state / needs.memory:.0%}: share it, '
            f'--{"" if remat is None else "config."}fsdp={_next_divisor(needs)}')
  if remat is None and rows > 1:
    return f'take fewer at once: --batch-size {max(1, rows // 2) * needs.num_devices}'
  if remat in ('none', 'attention'):
    return (f'store less for the backward pass: --config.{remat_key}=blocks, which costs no '
            'convolution')
  if rows > 1:
    wanted = max(2, needs.activations / max(1, needs.memory - needs.state))
    more = next(n for n in range(1, rows + 1) if rows % n == 0 and (n >= wanted or n == rows))
    return f'cut the batch: --config.microbatches={more * microbatches}, or use more devices'
  return 'each device has one image at a time already: use devices with more memory'


def _next_divisor(needs: Needs) -> int:
  """The least fsdp that brings the state below a third of the memory."""
  whole = needs.state * needs.fsdp
  divisors = [n for n in range(1, needs.num_devices + 1) if needs.num_devices % n == 0]
  return next((n for n in divisors if whole / n < needs.memory / 3), needs.num_devices)
