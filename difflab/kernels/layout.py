"""How compiled code sees a program: words of a state and of a table's rows, and the blocks of numbers they lead to.

A state says where everything lies, as addresses. Values, cotangents and their tangents lie in workspaces of one layout:
of a tile of n samples, the value that starts at column c is the block at entry n * c, in C order with samples as rows.
Column 0 is x, which lies where the caller has it. Cotangents have columns of their own, as they share room in turn.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from difflab.kernels.target import PLAIN, compiled


VALUES, X, BARS, X_BAR, DOTS, X_DOT, BAR_DOTS, X_BAR_DOT = range(8)
"""Words of a state: workspaces, each with where the rows of x lie; dots are along a direction of theta and x."""

THETA, THETA_DOT, GRADIENT, GRADIENT_DOT, CONSTANTS, LOSS_SUMS, SCRATCH = range(8, 15)
"""Addresses of (n_params,) arrays, of constants, of losses in float64, and of room for one step."""

OF_SAMPLES, OF_TOTALS, OF_BATCH, LIMITS = range(4)
"""What lies there: the sums of losses over samples and over totals, the loss of the batch, and behind these between
which two numbers targets must be."""

Y, IS_CLASSES, OUTPUTS_BAR, OUTPUTS_DOT, OUTPUTS = range(15, 20)
"""Addresses of targets, of given cotangents and of wanted tangents of outputs, 0 where there are none; whether targets
are indices of classes; the column of the outputs, or of their cotangents where those are given."""

BATCH, IS_FIRST, PARTS, ITEM = range(20, 24)
"""Samples in the tile, whether it is the first, what the sum of losses is divided by, bytes of a number."""

TOTAL, TILE, N_ROWS, N_PARAMS, N_INPUTS, N_OUTPUTS = range(24, 30)
"""Samples in all and in a full tile, rows of the table, entries of theta, widths of x and of the outputs."""

X_DOT_STEP, X_BAR_STEP, GRADIENT_STEP = range(30, 33)
"""By how many bytes the next sample lies further; 0 for what is used again and again."""

ONLY_BATCH, DIVISOR = range(33, 35)
"""The one number of samples there is room for, or 0; what losses are divided by if not by their number, or 0."""

PRODUCT, RUN, CREW, PARTNERS, RESULT = range(35, 40)
"""Addresses of the code that makes products of matrices, and of that which runs a plan; of a crew, 0 without one, and
of the plans for chunks of samples; the word for what these add up to, or 0 for their losses alone."""

HELD_X, HELD_GRADIENT = range(40, 42)
"""Where the samples of a bound call begin, and its gradient: a run advances its own addresses, and an error leaves them
advanced."""

LOOKS_FIRST, SHARE_BEGIN, SHARE_END = range(42, 45)
"""Whether a run looks at the numbers it is given and makes NaN of the loss for those that it does not take; which
entries of theta it looks at, or adds up those of the gradient."""

WHOLE, WAVE, N_PARTS = range(45, 48)
"""Of a chunk, where the plan lies that it is a part of; of that plan, at which sample the chunks under way begin, and
how many they are."""

TURN = 48
"""Address of the word that says whose turn it is to use the workspace."""

MASKS, MASKS_COLUMN, MASKS_WIDTH, N_STATE = range(49, 53)
"""Where those of samples that go alone lie, one row for each, or 0; where they belong among the values; numbers of a
row."""

FORWARD, TANGENT, REVERSE, REVERSE_TANGENT, INPUT, INPUT_WIDTH, OTHER, OUTPUT, WIDTH = range(9)
"""Words of a row: addresses of its rules, and columns of two inputs and of the value it makes."""

INPUT_BAR, OTHER_BAR, OUTPUT_BAR = range(9, 12)
"""Columns of the cotangents of these three; -1 for one that has none."""

FIRST, SECOND, SIZE, CONSTANT, SLOPE, KEEPS, N_COLUMNS = range(12, 19)
"""Offsets of two parameters in theta, the size of the last one, where constants start, the column for slopes, and which
cotangents were begun before in a reverse sweep; -1 where there is none."""

KEEPS_INPUT, KEEPS_OTHER, KEEPS_FIRST, KEEPS_SECOND, HAS_NO_BAR = 1, 2, 4, 8, 16
"""Bits of ``KEEPS``; the last is for an input whose cotangent nobody wants."""


@intrinsic
def _pointer(typing, address, like):
    """An address as a pointer to numbers of the type of ``like``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(like)(types.int64, like), generate


def _called(context: Any, builder: Any, signature: Any, given: Any) -> Any:
    """How a call of the code at an address ends, with a tuple of arguments."""
    kinds, convention = list(signature.args[1]), context.call_conv
    pointer = convention.get_function_type(types.none, kinds).as_pointer()
    function, values = builder.inttoptr(given[0], pointer), cgutils.unpack_tuple(builder, given[1])
    status, _ = convention.call_function(builder, function, types.none, kinds, values)
    return status


@intrinsic
def _call(typing, code, arguments):
    """Call compiled code at an address with a tuple of arguments; an error in it is passed on."""

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        status = _called(context, builder, signature, given)
        with cgutils.if_unlikely(builder, status.is_error):
            context.call_conv.return_status_propagate(builder, status)
        return context.get_dummy_value()

    return types.none(types.int64, arguments), generate


@intrinsic
def _fails(typing, code, arguments):
    """The same; an error in it is all that is said."""

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        return _called(context, builder, signature, given).is_error

    return types.boolean(types.int64, arguments), generate


if numba.config.DISABLE_JIT:

    def array(address: int, size: int, zero: Any) -> np.ndarray:
        dtype = np.dtype(type(zero))
        if size == 0:
            return np.empty(0, dtype)
        memory: Any = (ctypes.c_char * int(size * dtype.itemsize)).from_address(int(address))
        return np.frombuffer(memory, dtype)

    def matrix(address: int, rows: int, columns: int, zero: Any) -> np.ndarray:
        return array(address, rows * columns, zero).reshape(rows, columns)

    def call(code: int, arguments: tuple[Any, ...]) -> None:
        PLAIN[int(code)](*arguments)

    def fails(code: int, arguments: tuple[Any, ...]) -> bool:
        try:
            call(code, arguments)
        except Exception:
            return True
        return False

else:

    @compiled
    def array(address, size, zero):
        """Numbers at an address, of the type of ``zero``."""
        return numba.carray(_pointer(address, zero), (size,))

    @compiled
    def matrix(address, rows, columns, zero):
        return numba.carray(_pointer(address, zero), (rows, columns))

    @compiled
    def call(code, arguments):
        """Run the code at an address."""
        _call(code, arguments)

    @compiled
    def fails(code, arguments):
        """Run the code at an address; whether it raised an error."""
        return _fails(code, arguments)


@intrinsic
def _start_of(typing, numbers):
    """Where the numbers of an array start."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (kind,) = signature.args
        made = context.make_array(kind)(context, builder, arguments[0])
        return builder.ptrtoint(made.data, ir.IntType(64))

    return types.int64(numbers), generate


if numba.config.DISABLE_JIT:

    def address_of(numbers: np.ndarray) -> int:
        return numbers.ctypes.data

else:

    @compiled
    def address_of(numbers):
        return _start_of(numbers)


@compiled
def words(address, size):
    return array(address, size, np.int64(0))


@compiled
def reals(address, size):
    return array(address, size, np.float64(0))


@compiled
def place(state, part, column):
    """Where a value starts in the workspace ``part``."""
    if column == 0:
        return state[part + 1]
    return state[part] + state[ITEM] * state[BATCH] * column


@compiled
def block(state, part, column, width, zero):
    """All numbers of a value in the workspace ``part``."""
    return array(place(state, part, column), state[BATCH] * width, zero)


@compiled
def rows(state, part, column, width, zero):
    """The same, (batch, width)."""
    return matrix(place(state, part, column), state[BATCH], width, zero)


@compiled
def parameter_at(state, part, offset):
    """Where a slice of theta starts, of its gradient, or of a tangent of either."""
    return state[part] + state[ITEM] * offset


@compiled
def parameter(state, part, offset, size, zero):
    """Such a slice."""
    return array(parameter_at(state, part, offset), size, zero)


@compiled
def constants(row, state, size):
    return reals(state[CONSTANTS] + 8 * row[CONSTANT], size)


@compiled
def losses_of(state):
    """Those without the limits of targets."""
    return reals(state[LOSS_SUMS], LIMITS)


@compiled
def clear(numbers):
    for i in range(numbers.size):
        numbers[i] = 0


@compiled
def opened(row, state, part, at, bit, zero):
    """The cotangents of the input whose column is in the word ``at``, ready to be added to."""
    width = row[INPUT_WIDTH] if at == INPUT_BAR else row[WIDTH]
    made = block(state, part, row[at], width, zero)
    if row[KEEPS] & bit == 0:
        clear(made)
    return made


@compiled
def is_begun(row, state, bit):
    """Whether the gradient of a parameter has been added to: by a tile before, or in this one."""
    return state[IS_FIRST] == 0 or row[KEEPS] & bit != 0


@compiled
def opened_parameter(row, state, part, at, bit, size, zero):
    """The gradient of a parameter, ready to be added to."""
    made = parameter(state, part, row[at], size, zero)
    if not is_begun(row, state, bit):
        clear(made)
    return made


@compiled
def multiply(state, out, start, start_row, left, left_turned, right, right_turned, rows, columns, terms, zero):
    """Add a product of matrices to what is at ``start`` [products.product]."""
    given = out, start, start_row, left, left_turned, right, right_turned, rows, columns, terms, state[SCRATCH], zero
    call(state[PRODUCT], given)
