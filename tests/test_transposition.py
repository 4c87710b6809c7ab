"""Matrices turned by compiled code: every entry in its place, and nothing outside of it touched."""

from __future__ import annotations

import numpy as np
import pytest
from entered import entered

from difflab.kernels.transposition import SIDE, transpose


MARGIN = 16
SIZES = (1, 2, SIDE - 1, SIDE, SIDE + 1, 2 * SIDE, 2 * SIDE + 3, 16, 17, 128)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_rows_become_columns_whatever_is_left_over(dtype):
    function = entered(transpose)
    for rows in SIZES:
        for columns in SIZES:
            given = np.arange(rows * columns, dtype=dtype).reshape(rows, columns)
            bordered = np.full(given.size + 2 * MARGIN, -1, dtype)
            out = bordered[MARGIN:-MARGIN]
            function(out.ctypes.data, given.ctypes.data, rows, columns, given.itemsize, given.dtype.type(0))
            np.testing.assert_array_equal(out.reshape(columns, rows), given.T)
            assert (bordered[:MARGIN] == -1).all()
            assert (bordered[-MARGIN:] == -1).all()
