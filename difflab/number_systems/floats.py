"""Floating-point numbers, real and complex."""

from __future__ import annotations

import numpy as np

from difflab.number_systems.vocabulary import Array


class Floats:
    """NumPy's real or complex floating-point numbers of one dtype."""

    def __init__(self, dtype: str) -> None:
        self.dtype = np.dtype(dtype)

    def array(self, values: Array) -> Array:
        return np.asarray(values, self.dtype)

    matmul = staticmethod(np.matmul)
    square = staticmethod(np.square)
    sqrt = staticmethod(np.sqrt)
    exp = staticmethod(np.exp)
    expm1 = staticmethod(np.expm1)
    log = staticmethod(np.log)
    sin = staticmethod(np.sin)
    cos = staticmethod(np.cos)
    tanh = staticmethod(np.tanh)

    def sum(self, z: Array) -> Array:
        return z.sum(axis=-1)

    def expit(self, z: Array) -> Array:
        tail = np.exp(_decaying(z))
        return np.where(z.real > 0, 1, tail) / (1 + tail)

    def log1pexp(self, z: Array) -> Array:
        return self.positive_part(z) + _log1p(np.exp(_decaying(z)))

    def erfc(self, z: Array) -> Array:
        # Here and not above: importing scipy takes longer than most commands.
        from scipy.special import erfc

        return erfc(z)

    def xlogx(self, z: Array) -> Array:
        return z * np.log(np.where(z == 0, 1, z))

    def positive_part(self, z: Array) -> Array:
        return np.where(z.real <= 0, 0, z)

    def negative_part(self, z: Array) -> Array:
        return np.where(z.real <= 0, z, 0)

    def deviation(self, z: Array, c: Array) -> Array:
        """Scaled, so that squares neither overflow nor vanish; c must be positive."""
        scale = np.maximum(np.abs(z.real).max(axis=-1), np.sqrt(np.abs(c)))
        return np.sqrt(np.square(z / scale[..., None]).mean(axis=-1) + c / scale / scale) * scale

    def maximum(self, z: Array) -> Array:
        return np.take_along_axis(z, z.real.argmax(axis=-1)[..., None], axis=-1)[..., 0]

    def shift(self, z: Array) -> Array:
        return z.real.max(axis=-1, keepdims=True)


def _decaying(z: Array) -> Array:
    """Plus or minus z, whichever has a real part that is not positive, so that exp cannot overflow; z at 0."""
    return np.where(z.real > 0, -z, z)


def _log1p(z: Array) -> Array:
    """NumPy's own forms |1 + z| for complex z, which loses a small real part."""
    if not np.iscomplexobj(z):
        return np.log1p(z)
    return np.log1p(2 * z.real + np.abs(z) ** 2) / 2 + 1j * np.arctan2(z.imag, 1 + z.real)
