"""What processes say of themselves, whatever a bucket answers."""

import time

import buckets

from adm_jax.io import heartbeats
from adm_jax.io.parts import Part


def test_an_error_of_a_bucket_ends_no_heartbeat(monkeypatch):
  monkeypatch.setattr(heartbeats, 'SECONDS', 0.06)
  with buckets.in_force(monkeypatch) as bucket, heartbeats.Heart(bucket, Part(0, 2)) as heart:
    written_whole, calls = heartbeats.written_whole, []

    def failing(*arguments, **options):
      calls.append(arguments)
      raise Exception('no OSError, as those of HTTP')
    monkeypatch.setattr(heartbeats, 'written_whole', failing)
    heart.say(making=(0, 4))
    while len(calls) < 3:
      time.sleep(0.01)
    monkeypatch.setattr(heartbeats, 'written_whole', written_whole)
    begun = time.time()
    while heartbeats.read(bucket)[0].seen < begun:
      time.sleep(0.01)
    assert heartbeats.read(bucket)[0].making == (0, 4)
