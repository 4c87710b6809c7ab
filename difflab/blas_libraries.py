"""Libraries of BLAS by the addresses of their routines: SciPy's, which is always there, and MKL."""

from __future__ import annotations

import ctypes
import importlib.metadata
from functools import cache
from pathlib import Path

from difflab.errors import MissingExtra


LIBRARIES = ("scipy", "mkl")

MKL = "libmkl_rt."
"""How the name of the file of MKL begins that has all routines."""

LP64 = 0
"""MKL's number for the interface whose integers have 32 bits; the bit of the others is 1 [mkl_service.h]."""


def missing(blas: str) -> str | None:
    """The sentence about a library that is asked for and cannot be called, or None."""
    if blas != "mkl" or _takes_short_integers():
        return None
    if not _mkl_file():
        return str(MissingExtra("mkl", "MKL"))
    return "MKL must take integers of 32 bits, got 64, as another user of it in this process chose; use blas='scipy'"


def address(library: str, routine: str) -> int:
    """Where a routine of BLAS starts, whose arguments are Fortran's."""
    return _of_scipy(routine) if library == "scipy" else _of_mkl(f"{routine}_")


def address_of_mkl_threads() -> int:
    """Where the function of MKL starts that gives the calling thread so many threads, and returns how many it had."""
    return _of_mkl("MKL_Set_Num_Threads_Local")


def _of_scipy(routine: str) -> int:
    """What SciPy gives to Cython, in a capsule."""
    # Here and not above: importing it takes longer than most commands.
    from scipy.linalg import cython_blas

    capsule = cython_blas.__pyx_capi__[routine]
    name = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(("PyCapsule_GetName", ctypes.pythonapi))(capsule)
    pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
    found = pointer(("PyCapsule_GetPointer", ctypes.pythonapi))(capsule, name)
    assert found is not None
    return found


def _of_mkl(symbol: str) -> int:
    found = ctypes.cast(getattr(_mkl(), symbol), ctypes.c_void_p).value
    assert found is not None
    return found


@cache
def _mkl_file() -> str | None:
    try:
        files = importlib.metadata.files("mkl") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    places = (Path(str(file.locate())) for file in files if file.name.startswith(MKL))
    return next((str(place) for place in places if place.exists()), None)


@cache
def _mkl() -> ctypes.CDLL:
    return ctypes.CDLL(str(_mkl_file()))


@cache
def _takes_short_integers() -> bool:
    """Whether MKL is there with the interface that is called here.

    The first to use it in a process chooses, by such a call or else by ``MKL_INTERFACE_LAYER``.
    """
    return _mkl_file() is not None and _mkl().MKL_Set_Interface_Layer(LP64) & 1 == LP64
