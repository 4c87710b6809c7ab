"""Whose BLAS it is: MKL's where it is installed and can be called, and SciPy's elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import naive
import numpy as np
import pytest

import difflab as dl
from difflab import blas_libraries
from difflab.kernels import blas_products


NET = dl.MLP.dense([8, 8, 8, 2], "tanh")


def without_mkl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas_libraries, "_mkl_file", lambda: None)
    monkeypatch.setattr(blas_libraries, "_takes_short_integers", blas_libraries._takes_short_integers.__wrapped__)


def test_without_mkl_it_is_scipys(monkeypatch):
    without_mkl(monkeypatch)
    assert blas_products.chosen("auto") == "scipy"
    assert dl.Backprop().prepare(NET).library == "scipy"


def test_mkl_that_is_asked_for_and_not_there_is_said_to_be_missing(monkeypatch):
    without_mkl(monkeypatch)
    with pytest.raises(dl.Unsupported, match=r"MKL is not installed; install it with: pip install 'difflab\[mkl\]'"):
        dl.Backprop(blas="mkl").prepare(NET)


def test_a_package_without_its_file_counts_for_nothing(monkeypatch):
    """As where somebody deleted it."""

    class File:
        name = "libmkl_rt.so.3"

        def locate(self) -> str:
            return "/nowhere/libmkl_rt.so.3"

    monkeypatch.setattr(blas_libraries.importlib.metadata, "files", lambda package: [File()])
    assert blas_libraries._mkl_file.__wrapped__() is None


LP64, ILP64, GNU = 0, 1, 2
"""MKL's numbers for interfaces; that for GNU's compilers is added to one of the others [mkl_service.h]."""


def with_mkl_of(monkeypatch: pytest.MonkeyPatch, interface: int) -> None:
    """As another user of the process has chosen."""
    without_mkl(monkeypatch)
    library = SimpleNamespace(MKL_Set_Interface_Layer=lambda layer: interface)
    monkeypatch.setattr(blas_libraries, "_mkl_file", lambda: "libmkl_rt.so.3")
    monkeypatch.setattr(blas_libraries, "_mkl", lambda: library)


@pytest.mark.parametrize("interface", [LP64, LP64 + GNU])
def test_an_mkl_that_takes_short_integers_is_called_whoevers_interface_it_has(monkeypatch, interface):
    with_mkl_of(monkeypatch, interface)
    assert blas_libraries.missing("mkl") is None


@pytest.mark.parametrize("interface", [ILP64, ILP64 + GNU])
def test_an_mkl_that_takes_long_integers_is_not_called(monkeypatch, interface):
    with_mkl_of(monkeypatch, interface)
    assert blas_products.chosen("auto") == "scipy"
    with pytest.raises(dl.Unsupported, match="MKL must take integers of 32 bits, got 64"):
        dl.Backprop(blas="mkl").prepare(NET)


def test_other_libraries_are_unknown():
    with pytest.raises(ValueError, match="unknown blas 'mlk'; known: auto, mkl, scipy; did you mean 'mkl'"):
        dl.Backprop(blas="mlk")


def test_the_choice_is_in_the_label_where_it_was_made():
    assert repr(dl.Backprop(blas="scipy")) == "Backprop('float64', 'scipy')"
    assert repr(dl.Backprop()) == "Backprop('float64')"


@pytest.mark.parametrize(
    ("processor", "library"), [("rocketlake", "mkl"), ("znver5", "scipy"), ("znver2", "scipy"), ("x86-64", "mkl")]
)
def test_mkl_is_not_the_choice_on_a_processor_of_amd(monkeypatch, processor, library):
    monkeypatch.setattr(blas_libraries, "_takes_short_integers", lambda: True)
    monkeypatch.setattr(blas_products.llvmlite.binding, "get_host_cpu_name", lambda: processor)
    assert blas_products.chosen("auto") == library
    assert blas_products.chosen("mkl") == "mkl"


def test_a_choice_that_does_not_know_amd_would_be_noticed(monkeypatch):
    monkeypatch.setattr(blas_products, "AMD", ("none",))
    with pytest.raises(AssertionError):
        test_mkl_is_not_the_choice_on_a_processor_of_amd(monkeypatch, "znver5", "scipy")


needs_mkl = pytest.mark.skipif(blas_libraries.missing("mkl") is not None, reason="needs the extra [mkl]")
THREADS_OF_MKL = """
import os, sys
from contextlib import suppress
import numpy as np
import difflab as dl
from difflab.kernels import blas_products

if sys.argv[1] == "planted":
    blas_products._on_one_thread_of_mkl = lambda builder, call: call()
net = dl.MLP.dense([600, 600, 10])
prepared = dl.Backprop(blas="mkl").prepare(net)
assert blas_products.by_blas.cache_info().currsize == 1
arguments = net.init(0), np.ones((300, 600)), np.zeros(300, np.int64)
before = len(os.listdir("/proc/self/task"))
prepared.value_and_gradient(*arguments)
print(len(os.listdir("/proc/self/task")) - before)
"""


@needs_mkl
@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are counted as Linux shows them")
@pytest.mark.parametrize(("planted", "more"), [("nothing", False), ("planted", True)])
def test_a_product_by_mkl_starts_no_threads_unless_a_fault_lets_it(planted, more):
    threads = dict.fromkeys(("MKL_NUM_THREADS", "OMP_NUM_THREADS"), "3") | {"MKL_DYNAMIC": "FALSE"}
    found = subprocess.run(
        [sys.executable, "-c", THREADS_OF_MKL, planted],
        env=os.environ | threads | {"DIFFLAB_NO_CACHE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (int(found.stdout) > 0) == more


@needs_mkl
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_gradients_by_mkl_and_by_scipys_are_within_their_bound(dtype):
    net = dl.MLP.dense([100, 200, 150, 10], "tanh")
    theta, x, y = naive.random_problem(net, np.random.default_rng(0), 40)
    given = theta.astype(dtype), x.astype(dtype), y
    truth = dl.reference_gradient(net, *given)
    for blas in ("mkl", "scipy"):
        _, gradient = dl.Backprop(dtype, blas=blas).prepare(net).value_and_gradient(*given)
        assert dl.discrepancy(gradient, truth, bound=dl.rounding_bound(truth, dtype)).is_within_bound


OF_LONG_INTEGERS = """
import numpy as np
import difflab as dl

net = dl.MLP.dense([300, 200, 3])
arguments = net.init(0), np.ones((256, 300)), np.zeros(256, int)
values = [dl.Backprop(blas=blas).prepare(net).value_and_gradient(*arguments)[0] for blas in ("mkl", "scipy")]
assert abs(values[0] - values[1]) < 1e-13, values
"""


@needs_mkl
def test_the_environment_does_not_make_integers_long():
    """Products were wrong without a word, or ended the process."""
    given = os.environ | {"MKL_INTERFACE_LAYER": "ILP64"}
    done = subprocess.run([sys.executable, "-c", OF_LONG_INTEGERS], env=given, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
