"""Lengths of time, as people say them."""


def words(seconds: float) -> str:
  """'12 s', '3 min', '2 h 10 min', '1 d 4 h'."""
  minutes, hours = int(seconds // 60), int(seconds // 3600)
  if seconds < 100:
    return f'{seconds:.0f} s'
  if minutes < 100:
    return f'{minutes} min'
  return f'{hours} h {minutes % 60} min' if hours < 48 else f'{hours // 24} d {hours % 24} h'
