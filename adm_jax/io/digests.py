"""Short names for contents: equal for equal ones."""

import hashlib
from typing import Iterable


def short(*parts: str | bytes | Iterable[str | bytes]) -> str:
  """Returns 16 hexadecimal digits of the SHA-256 of all parts, one after the other."""
  digest = hashlib.sha256()
  for part in parts:
    for piece in [part] if isinstance(part, (str, bytes, memoryview)) else part:
      digest.update(piece.encode() if isinstance(piece, str) else piece)
  return digest.hexdigest()[:16]
