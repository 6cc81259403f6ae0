"""A second opinion on small images: a perceptron that has only ever seen real, clean ones.

It shares neither architecture, data augmentation nor noise with the classifier that guides, so that
fooling the one does not fool the other.
"""

import numpy as np


class IndependentClassifier:
  """Names the class of an image, and gives features for distances between sets of images."""

  def __init__(self, images: np.ndarray, labels: np.ndarray):
    """Trains on `images` uint8[N H W C] with `labels` i32[N]; a few seconds for thousands."""
    from sklearn import neural_network  # a second to import

    self._network = neural_network.MLPClassifier(
        hidden_layer_sizes=(256, 64), alpha=1e-2, tol=1e-3, max_iter=500, random_state=0)
    self._network.fit(_flat(images), labels)

  def classes(self, images: np.ndarray) -> np.ndarray:
    """[N]: the class of each of `images` uint8[N H W C]."""
    return self._network.predict(_flat(images))

  def accuracy(self, images: np.ndarray, labels: np.ndarray) -> float:
    """The share of images whose class is the label."""
    return float((self.classes(images) == labels).mean())

  def features(self, images: np.ndarray) -> np.ndarray:
    """f64[N 64]: the activations of the last hidden layer."""
    h = _flat(images)
    for weights, bias in zip(self._network.coefs_[:-1], self._network.intercepts_[:-1]):
      h = np.maximum(h @ weights + bias, 0)
    return h


def _flat(images: np.ndarray) -> np.ndarray:
  return images.reshape(len(images), -1) / 255.0
