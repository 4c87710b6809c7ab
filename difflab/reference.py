"""Reference gradients: the certified truth together with the problem it belongs to, as an object, as a file."""

from __future__ import annotations

import dataclasses
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from difflab.backends.arguments import checked
from difflab.backends.certified import DTYPES, ENCLOSED, KINK, ROUNDED, Certified, Enclosure, PreparedCertified
from difflab.enclosures.certificate import (
    N_DIRECTIONS,
    POWER_SERIES,
    ROUTES,
    Certificate,
    CertificateBroken,
    certify,
)
from difflab.enclosures.derivatives import Point
from difflab.files import write_atomically
from difflab.network import MLP


FORMAT = "difflab reference 3"
MAX_FILE_BYTES = 2**32
"""Unpacked size beyond which a file is not opened."""

CONVENTIONS = (
    "rows of x are samples; weight is (out, in); theta is layer by layer, weight then bias, C order, the projection "
    "of a residual layer after the layers within; piece p of unit j of a maxout is row j pieces + p; "
    "cross-entropies take logits; targets with label smoothing s are y (1 - s) + s / C; penalties are l1 sum |w| + "
    "l2 / 2 sum w**2 over weights, added once; batch norm has the population variance; dropout is a mask / (1 - p), "
    "mask = numpy.random.default_rng(seed).random((batch, width)) >= p; at a kink gradient holds the left slope of an "
    "activation, that of the first largest piece of a maxout, and 0 for |w|; "
    "the true derivative lies within [lower, upper], within radius of gradient + residual where status is rounded"
)
SCALARS = ("value", "value_lower", "value_upper")
ARRAYS = ("theta", "x", "y", *SCALARS, "gradient", "residual", "radius", "lower", "upper", "status")


class InvalidReference(ValueError):
    """A file that is no reference gradient."""


@dataclass(frozen=True)
class Reference(Enclosure):
    """A certified value and gradient with their arguments.

    Attributes
    ----------
    theta : (n_params,)
    x : (batch, n_inputs)
    y : (batch, n_outputs), or class indices (batch,)
    certificate : the other routes to the gradient that ran when it was made, and how tight they were.
    """

    theta: np.ndarray
    x: np.ndarray
    y: np.ndarray
    certificate: Certificate

    @property
    def point(self) -> Point:
        """Where the gradient was taken, with targets in rows."""
        given = checked(self.net, self.theta, self.x, self.y, DTYPES, allow_nonfinite=True)
        return Point(self.net.program, *(a.astype(np.float64) for a in (given.theta, given.x, given.y)))


class _Header(msgspec.Struct, forbid_unknown_fields=True):
    format: str
    network: MLP
    bits: int
    conventions: str
    certificate: Certificate


def reference_gradient(
    net: MLP, theta: np.ndarray, x: np.ndarray, y: np.ndarray, thorough: bool = False
) -> Reference:  # fmt: skip
    """The certified gradient of ``net`` at exactly these floating-point arguments, with its certificate.

    Parameters
    ----------
    theta : (n_params,)
    x : (batch, n_inputs)
    y : (batch, n_outputs), or class indices (batch,)
    thorough : whether, beside power series along random directions, central differences and SymPy's derivatives are to
        certify the gradient entry by entry, where the network is small enough for them

    Raises
    ------
    CertificateBroken
        If another route contradicts the gradient; then one of the two is wrong, and there is no truth to be had.
    """
    prepared = Certified().prepare(net)
    assert isinstance(prepared, PreparedCertified)
    made = prepared.enclose(theta, x, y)
    fields = {field.name: getattr(made, field.name) for field in dataclasses.fields(Enclosure)}
    bare = Reference(**fields, theta=theta.copy(), x=x.copy(), y=y.copy(), certificate=Certificate(()))
    return dataclasses.replace(bare, certificate=verify(bare, thorough))


def verify(
    reference: Reference, thorough: bool = False, n_directions: int = N_DIRECTIONS, seed: int = 0
) -> Certificate:
    """Certify the gradient of a reference anew, by routes that do not trust the sweep which made it.

    Parameters
    ----------
    reference : as made, or as read from a file
    thorough : as for :func:`reference_gradient`
    n_directions : how many random directions the power series go along
    seed : of these directions

    Raises
    ------
    TypeError, ValueError
        If ``reference`` is no reference, or there is no direction to go along.
    CertificateBroken
        If a route contradicts the gradient.
    """
    if not isinstance(reference, Reference):
        kind = type(reference).__name__
        raise TypeError(f"reference must have its arguments, got {kind}; make one with difflab.reference_gradient")
    if type(n_directions) is not int or n_directions < 1 or type(seed) is not int or seed < 0:
        raise ValueError(f"n_directions must be 1 or more and seed 0 or more, got {n_directions!r} and {seed!r}")
    point, found = reference.point, reference.entries
    routes = ROUTES if thorough else (POWER_SERIES,)
    made = certify(reference.net, point, found, routes, n_directions, seed)
    if made.is_broken:
        raise CertificateBroken(f"gradient of {reference.net} must agree on all routes, got\n{made}")
    return made


def write(reference: Reference, path: Path) -> None:
    """Write a reference as npz: arrays, and a JSON header that names network and conventions."""
    header = _Header(FORMAT, reference.net, reference.bits, CONVENTIONS, reference.certificate)
    arrays = {name: getattr(reference, name) for name in ARRAYS}
    buffer = io.BytesIO()
    np.savez(buffer, header=np.frombuffer(msgspec.json.encode(header), np.uint8), **arrays)
    write_atomically(path, buffer.getvalue())


def read(path: Path) -> Reference:
    """Read a reference file; nothing in it is ever executed.

    Raises
    ------
    InvalidReference
        If the file is not what :func:`write` writes.
    """
    try:
        content = load_arrays(path)
        header = msgspec.json.decode(content.pop("header").tobytes(), type=_Header)
        _check_content(header, content)
    except (KeyError, ValueError, TypeError, RecursionError, msgspec.MsgspecError) as error:
        raise InvalidReference(f"{path} must be a reference file, got: {error}") from error
    fields: dict[str, Any] = {name: float(content.pop(name)) for name in SCALARS} | content
    return Reference(net=header.network, bits=header.bits, certificate=header.certificate, **fields)


def _check_content(header: _Header, content: dict[str, np.ndarray]) -> None:
    """Every array as it was written, in kind and shape."""
    if header.format != FORMAT or set(content) != set(ARRAYS):
        raise ValueError(f"format {header.format!r} with {sorted(content)}, expected {FORMAT!r} with {list(ARRAYS)}")
    net = header.network
    checked(net, content["theta"], content["x"], content["y"], DTYPES, allow_nonfinite=True)
    for name in ("gradient", "residual", "radius", "lower", "upper"):
        if content[name].shape != (net.n_params,) or content[name].dtype != np.float64:
            raise ValueError(f"{name} of {content[name].dtype} {content[name].shape}; must hold {net.n_params} entries")
    status = content["status"]
    if status.shape != (net.n_params,) or not set(status.tolist()) <= {ROUNDED, ENCLOSED, KINK}:
        raise ValueError(f"status {status.shape}; must hold {net.n_params} statuses")
    if not (content["radius"] >= 0).all():
        raise ValueError("a radius that is negative or no number")
    if header.conventions != CONVENTIONS or not 0 <= header.bits <= 2**24:
        raise ValueError(f"conventions or {header.bits} bits that this version does not write")
    routes = [route.name for route in header.certificate.routes]
    if not header.certificate.holds or len(set(routes)) < len(routes):
        raise ValueError("a certificate that does not hold, or has a route twice")
    _check_bounds(content, status == ROUNDED)
    if any(content[name].shape != () or content[name].dtype != np.float64 for name in SCALARS):
        raise ValueError("a value that is no float64")


def _check_bounds(content: dict[str, np.ndarray], is_rounded: np.ndarray) -> None:
    """Bounds in order, and the nearest float of a proven entry between them."""
    for low, nearest, high, which in (
        (content["lower"], content["gradient"], content["upper"], is_rounded),
        (content["value_lower"], content["value"], content["value_upper"], np.isfinite(content["value"])),
    ):
        if not ((low <= high) & (~which | ((low <= nearest) & (nearest <= high)))).all():
            raise ValueError("bounds that do not hold what they bound")


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Arrays of an npz file, never pickled objects, and never more than ``MAX_FILE_BYTES`` unpacked.

    Raises
    ------
    FileNotFoundError
        If there is no file.
    ValueError
        If the file is no such thing.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > MAX_FILE_BYTES:
            raise ValueError(f"must unpack to at most {MAX_FILE_BYTES} bytes, got {unpacked}")
        with np.load(path, allow_pickle=False) as file:
            content = {name: file[name] for name in file.files}
        if no_arrays := [name for name, array in content.items() if not isinstance(array, np.ndarray)]:
            raise ValueError(f"{no_arrays} are no arrays")
        return content
    except FileNotFoundError:
        raise
    except Exception as error:  # damaged archives raise nearly anything, from zipfile, zlib, struct and NumPy
        raise ValueError(f"{path} must be an npz file of plain arrays, got: {error}") from error
