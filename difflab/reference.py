"""Reference gradients: the certified truth together with the problem it belongs to, as an object, as a file."""

from __future__ import annotations

import dataclasses
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from difflab.backends.certified import Certified, Enclosure, PreparedCertified
from difflab.files import write_atomically
from difflab.network import MLP


FORMAT = "difflab reference 1"
MAX_FILE_BYTES = 2**32
"""Unpacked size beyond which a file is not opened."""

CONVENTIONS = (
    "rows of x are samples; weight is (out, in); theta is layer by layer, weight then bias, C order; "
    "cross-entropies take logits; at a kink gradient holds the left slope; "
    "truth = gradient + residual within [lower, upper]"
)
ARRAYS = ("theta", "x", "y", "gradient", "residual", "lower", "upper", "status")


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
    """

    theta: np.ndarray
    x: np.ndarray
    y: np.ndarray


class _Header(msgspec.Struct, forbid_unknown_fields=True):
    format: str
    network: MLP
    value: float
    bits: int
    conventions: str


def reference_gradient(net: MLP, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> Reference:
    """The certified gradient of ``net`` at exactly these floating-point arguments.

    Parameters
    ----------
    theta : (n_params,)
    x : (batch, n_inputs)
    y : (batch, n_outputs), or class indices (batch,)
    """
    prepared = Certified().prepare(net)
    assert isinstance(prepared, PreparedCertified)
    made = prepared.enclose(theta, x, y)
    fields = {field.name: getattr(made, field.name) for field in dataclasses.fields(Enclosure)}
    return Reference(**fields, theta=theta, x=x, y=y)


def write(reference: Reference, path: Path) -> None:
    """Write a reference as npz: arrays, and a JSON header that names network and conventions."""
    header = _Header(FORMAT, reference.net, reference.value, reference.bits, CONVENTIONS)
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
    except (KeyError, ValueError, msgspec.MsgspecError) as error:
        raise InvalidReference(f"{path} must be a reference file, got: {error}") from error
    if header.format != FORMAT or set(content) != set(ARRAYS):
        raise InvalidReference(f"{path} must have format {FORMAT!r}, got {header.format!r} with {sorted(content)}")
    net = header.network
    if any(content[name].shape != (net.n_params,) for name in ("theta", "gradient", "residual", "lower", "upper")):
        raise InvalidReference(f"{path} must hold {net.n_params} entries for {net}")
    return Reference(net=net, value=header.value, bits=header.bits, **content)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Arrays of an npz file, never pickled objects, and never more than ``MAX_FILE_BYTES`` unpacked.

    Raises
    ------
    ValueError
        If the file is no such thing.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > MAX_FILE_BYTES:
            raise ValueError(f"{path} must unpack to at most {MAX_FILE_BYTES} bytes, got {unpacked}")
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (zipfile.BadZipFile, EOFError, SyntaxError, MemoryError, OverflowError) as error:
        raise ValueError(f"{path} must be an npz file of plain arrays, got: {error}") from error
