"""How large a picture may be. A file of some kilobytes may claim to be of any size."""

# A photograph of 100 megapixels passes, and no picture takes more than about 2 GB to decode.
MOST_PIXELS = 1 << 27
MOST_BYTES = 8 * MOST_PIXELS  # of a file: such a picture in 16 bits and four channels, not packed


class TooLarge(ValueError):
  """A picture is beyond these limits; the message says which."""


def check_pixels(width: int, height: int, what: str) -> None:
  """Raises TooLarge if `what` has too many pixels."""
  if width * height > MOST_PIXELS:
    raise TooLarge(f'{what} would have {width:,} x {height:,} pixels (W x H), and at most '
                   f'{MOST_PIXELS:,} are decoded')


def check_bytes(size: int) -> None:
  """Raises TooLarge if a file of a picture has too many bytes."""
  if size > MOST_BYTES:
    raise TooLarge(f'it has {size:,} bytes, and at most {MOST_BYTES:,} are read')
