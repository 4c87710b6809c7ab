"""Where figures come from: machine, versions, threads, BLAS kernels, commit."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import psutil
from threadpoolctl import threadpool_info

from difflab.peers.jax import xla_flags


PACKAGES = (
    "numpy",
    "scipy",
    "numba",
    "llvmlite",
    "sympy",
    "pandas",
    "python-flint",
    "msgspec",
    "scikit-learn",
    "numdifftools",
    "jacobi",
    "jax",
    "jaxlib",
    "torch",
    "casadi",
    "autograd",
    "symengine",
    "pytensor",
    "mkl",
)
SOURCE = Path(__file__).parents[2]
"""The checkout, where the package is used from one."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
BLAS_CHOICES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "OPENBLAS_THREAD_TIMEOUT", "KMP_BLOCKTIME")
"""Set by some machines for all programs, or by whoever asked; removed, so that every library does as it chooses."""


def worker_environment(threads: int = 1) -> dict[str, str]:
    """Environment variables of a process that measures: so many threads, each library's own choice of kernels."""
    kept = {name: value for name, value in os.environ.items() if name not in BLAS_CHOICES}
    return (
        kept
        | dict.fromkeys(THREAD_VARIABLES, str(threads))
        | {
            "XLA_FLAGS": xla_flags(threads),
            "TORCHINDUCTOR_COMPILE_THREADS": "1",
        }
    )


def environment() -> dict[str, Any]:
    """The record of this process: no path, no host name, no user."""
    return {
        "processor": _processor(),
        "cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": _versions(),
        "threads": {
            name: os.environ.get(name) for name in (*THREAD_VARIABLES, "OPENBLAS_THREAD_TIMEOUT", "KMP_BLOCKTIME")
        },
        "blas": _blas(),
    }


def identity(record: dict[str, Any]) -> str:
    """A digest by which equal environments are recognised."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]


def commit() -> str:
    """The commit of the code and studies that are measured, ``-dirty`` if they differ from it, or ``unknown``."""
    if not (SOURCE / "pyproject.toml").is_file():
        return "unknown"
    found = _git("rev-parse", "--short=12", "HEAD")
    changed = _git("status", "--porcelain", "--", "difflab", "studies")
    return f"{found}{'-dirty' if changed else ''}" if found else "unknown"


def _git(*arguments: str) -> str:
    try:
        found = subprocess.run(["git", *arguments], cwd=SOURCE, capture_output=True, text=True, timeout=10)
        return found.stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    model = fields.get("model name", platform.machine())
    family = f", family {fields['cpu family']} model {fields['model']}" if "cpu family" in fields else ""
    return model + family


def _versions() -> dict[str, str]:
    found = {}
    for name in ("difflab", *PACKAGES):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def _blas() -> list[dict[str, Any]]:
    """Every thread pool that is loaded; NumPy and SciPy each bring their own BLAS."""
    wanted = ("user_api", "internal_api", "version", "architecture", "num_threads", "threading_layer", "prefix")
    return [{name: pool[name] for name in wanted if pool.get(name)} for pool in threadpool_info()]
