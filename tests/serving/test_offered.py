"""Which classes a model is offered with."""

import tiny_models

from adm_jax.serving import models


def test_a_model_without_classes_has_those_of_what_guides_it(root, tmp_path):
  plain = str(tiny_models.unet(tmp_path / 'plain'))
  for more in (dict(student=str(root / 'student')), dict(classifier=str(root / 'classifier'))):
    model, = models.offered(plain, **more)
    assert model.class_names == tuple('01234')
  model, = models.offered(plain)
  assert model.class_names == ()
