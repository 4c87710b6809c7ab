"""Reverse mode: hand-written rules in compiled sweeps over the program, with first and second derivatives."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import wraps
from math import inf, isfinite, nan
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakSet

import numpy as np
from numpy import ndarray

from difflab import blas_libraries
from difflab.backends.arguments import Arguments, checked, checked_like, no_targets
from difflab.backends.contract import Backend, Prepared
from difflab.blas import ONE_THREAD
from difflab.counting import sweep_operations
from difflab.enclosures.rounding import rounding_errors
from difflab.errors import known
from difflab.network import MLP
from difflab.primitives.activations import ACTIVATIONS
from difflab.primitives.losses import LOSSES


if TYPE_CHECKING:
    from difflab.kernels.plans import Plan
    from difflab.kernels.rules import Kind
    from difflab.kernels.threads import Crew


MAX_HESSIAN = 4096
"""Parameters of a network whose full Hessian may be asked for: 134 MB of float64."""

SWEEPS: dict[Kind, str] = {"value": "value", "gradient": "value_and_gradient", "hvp": "hvp"}
"""Sweeps that are one call, by what their plans are for."""

OF_ANY_NETWORK: tuple[Kind, Kind] = ("value", "gradient")
"""The kinds of those that ask nothing of activations."""

CHUNK = 256
"""Samples whose gradients are added up before they meet those of others, if results are to be reproducible."""

OF_CLASSES = np.dtype(np.int64)
"""Of targets that are indices of classes."""

WORTH_A_THREAD = 1 << 20
"""Operations of a gradient that a thread should have at least, as they take some time to hand over."""

MOST_THREADS = 1024


def no_second_derivative(net: MLP) -> str | None:
    """The sentence about an activation that has no rules for a Hessian, or None."""
    for step in net.program.instructions:
        row = ACTIVATIONS.get(str(step.function))
        if row is not None and row.second_derivative is None:
            return f"{row.name} must have a second derivative for a Hessian, got none; register one"
        if row is not None and row.is_learnable and not (row.mixed_derivative and row.parameter_second_derivative):
            return f"{row.name} must have second derivatives in its parameter for a Hessian, got none; register them"
    return None


def _in_turn(method: Any) -> Any:
    """The method for one thread at a time, as all of one prepared network share its workspace."""

    @wraps(method)
    def wrapped(self: PreparedBackprop, *arguments: Any, **named: Any) -> Any:
        with self._turn:
            return method(self, *arguments, **named)

    return wrapped


@dataclass(frozen=True, repr=False)
class Backprop(Backend):
    """Hand-written reverse sweep, of which Numba compiles each step when a network first needs it.

    Parameters
    ----------
    dtype : ``"float64"`` or ``"float32"``: the arithmetic of products, sums and losses, and of activations whose rules
        hold in it; others are evaluated in float64 and rounded once.
    threads : how many share the samples of a batch for the loss, its gradient and Hessian-vector products, where there
        is enough to do for them; other derivatives have one thread, and so have networks that couple samples or drop
        units. After a call they look for the next one for a millisecond or a few before they sleep.
    mode : ``"fast"``, or ``"reproducible"``: the same bits on every processor and with any number of threads, but for
        registered activations whose rules call what has no vector mathematics, like ``math.sin``.
    blas : who makes large products in the fast mode: ``"scipy"``, ``"mkl"``, or ``"auto"``: MKL where it is installed,
        if the processor is not AMD's.
    """

    dtype: str = "float64"
    threads: int = 1
    mode: Literal["fast", "reproducible"] = "fast"
    blas: Literal["auto", "scipy", "mkl"] = "auto"
    name = "backprop"
    keeps_code = True

    def __post_init__(self) -> None:
        known(self.dtype, ("float64", "float32"), "dtype")
        known(self.mode, ("fast", "reproducible"), "mode")
        known(self.blas, ("auto", *blas_libraries.LIBRARIES), "blas")
        if type(self.threads) is not int or self.threads < 1:
            raise ValueError(f"threads must be an int from 1, got {self.threads!r}")
        if self.threads > MOST_THREADS:
            raise ValueError(f"threads must be at most {MOST_THREADS}, got {self.threads}")

    def __repr__(self) -> str:
        """As all back-ends, but for the usual mode and BLAS."""
        return super().__repr__().replace(", 'fast'", "").replace(", 'auto'", "")

    def unsupported(self, net: MLP) -> str | None:
        """That MKL is asked for and not there."""
        return blas_libraries.missing(self.blas)

    def _prepare(self, net: MLP) -> PreparedBackprop:
        return PreparedBackprop(net, self)


@dataclass(frozen=True)
class Bound:
    """The loss, and the loss with its gradient, at the numbers that given arrays hold when one of these is called."""

    value: Callable[[], float]
    value_and_gradient: Callable[[], tuple[float, np.ndarray]]


class PreparedBackprop(Prepared):
    """Plans of the sweeps that were asked for, each with its workspace.

    Derivatives beside the gradient take what ``value_and_gradient`` takes, and are what ``Certified`` encloses. As the
    workspace is one, threads that call take turns: prepare one for each where they should not wait. What is copied or
    pickled is prepared anew.

    Attributes
    ----------
    library : whose BLAS makes large products, ``"scipy"`` or ``"mkl"``.
    """

    backend: Backprop
    _crew: Crew | None
    """Who shares the samples of a batch; None where they are not to be cut, or there is nobody to share them."""

    _least_for_blas: float
    """Samples from which a product may be one for BLAS, whose threads have to be held back then."""

    def __init__(self, net: MLP, backend: Backprop) -> None:
        super().__init__(net, backend, (backend.dtype,))
        # Here and not above: importing numba takes longer than most commands.
        from difflab.kernels import blas_products, kept_plans, layout, plans, sweeps, tables, threads, turn

        self.facts["gradient_ops"] = sweep_operations(net.program)
        self.facts["primal_calls"] = 1
        self.library = blas_products.chosen(backend.blas)
        self._layout, self._sweeps = layout, sweeps
        self._dtype = np.dtype(backend.dtype)
        self._turn, self._crew, self._least_for_blas = turn.Turn(), None, inf
        is_reproducible = backend.mode == "reproducible"
        if (backend.threads > 1 or is_reproducible) and not plans.needs_all_samples(net.program):
            enough = -(-WORTH_A_THREAD // self.facts["gradient_ops"])
            self._crew = threads.Crew(backend.threads, CHUNK if is_reproducible else 0, enough, backend.dtype)
        if not is_reproducible:
            self._least_for_blas = plans.samples_for_blas(net.program, backend.dtype, self.library)
        choice = tables.Choice("value", backend.dtype, is_reproducible, library=self.library)
        self._plans = kept_plans.KeptPlans(net, choice, self._crew, self._turn.address)
        self._doors: dict[Kind, dict[int, Any]] = {}
        PREPARED.add(self)
        for kind in OF_ANY_NETWORK:
            self._plans.of(kind, 1)
            self._open(kind, 2)
        sweeps.door(sweeps.run, backend.dtype)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.backend.prepare, (self.net,)

    def value_and_gradient(
        self,
        theta: np.ndarray,
        x: np.ndarray,
        y: np.ndarray,
        out: np.ndarray | None = None,
        allow_nonfinite: bool = False,
    ) -> tuple[float, np.ndarray]:
        """The loss of a batch and its gradient with respect to theta; as in the contract.

        The compiled sweep checks its arguments itself, and returns NaN for one that it does not take or a result that
        is not finite. Then all is checked once more in Python, which raises the error or, as ``allow_nonfinite`` says,
        does not. Where samples go in chunks, by threads or in the reproducible mode, those before a number that is not
        finite have gone through by then: what ``out`` held is lost.
        """
        if out is None:
            out = np.empty(self.net.n_params, self._dtype)
        value = self._at_once("gradient", theta, x, y, out)
        if isfinite(value):
            return value, out
        with self._turn:
            return super().value_and_gradient(theta, x, y, out, allow_nonfinite)

    @_in_turn
    def bound_to(self, theta: np.ndarray, x: np.ndarray, y: np.ndarray, out: np.ndarray | None = None) -> Bound:
        """Calls without arguments, at whatever these arrays hold by then: for loops where microseconds count.

        Arguments are as for :meth:`value_and_gradient`. Values are checked by every call; shapes, dtypes and layouts
        only here, so the arrays may not be resized. They are kept alive, and each call for a gradient fills ``out``.
        """
        if out is None:
            out = np.empty(self.net.n_params, self._dtype)
        at_leisure = Bound(lambda: self.value(theta, x, y), lambda: self.value_and_gradient(theta, x, y, out))
        at_leisure.value_and_gradient()
        if len(x) >= self._least_for_blas or not self._can_be_read(theta, x, y, out):
            return at_leisure
        given = {"THETA": theta, "HELD_X": x, "Y": y, "HELD_GRADIENT": out, "TOTAL": len(x), "IS_CLASSES": y.ndim == 1}
        loss, gradient = (self._again(kind, given) for kind in OF_ANY_NETWORK)

        def value() -> float:
            found = loss()
            return found if isfinite(found) else at_leisure.value()

        def value_and_gradient() -> tuple[float, np.ndarray]:
            found = gradient()
            return (found, out) if isfinite(found) else at_leisure.value_and_gradient()

        return Bound(value, value_and_gradient)

    def _again(self, kind: Kind, given: dict[str, Any]) -> Callable[[], float]:
        """A sweep with words of its own for a plan's state."""
        plan = self._plans.of(kind, given["TOTAL"])
        arrays = [value for value in given.values() if isinstance(value, ndarray)]
        plan = replace(plan, words=plan.words.copy(), memory=(*plan.memory, *arrays))
        self._set(plan.words, given)
        again = self._sweeps.without_arguments(
            getattr(self._sweeps, f"{SWEEPS[kind]}_again"), plan.words, self._dtype.type(0), (plan, self._turn)
        )
        crew, samples = self._crew, given["TOTAL"]
        if not crew:
            return again

        def shared() -> float:
            crew.wake(samples)
            return again()

        return shared

    def _set(self, words: np.ndarray, given: dict[str, Any]) -> None:
        """Numbers, and arrays for their addresses."""
        for name, value in given.items():
            words[getattr(self._layout, name)] = value.ctypes.data if isinstance(value, ndarray) else value

    def _can_be_read(self, theta: np.ndarray, x: np.ndarray, y: np.ndarray, *others: np.ndarray) -> bool:
        """Whether sweeps take the arrays by their addresses."""
        of_targets = OF_CLASSES if y.ndim == 1 else self._dtype
        return all(
            array.__class__ is ndarray
            and array.dtype == (of_targets if array is y else self._dtype)
            and array.flags.c_contiguous
            and array.flags.aligned
            for array in (theta, x, y, *others)
        )

    def value(self, theta: np.ndarray, x: np.ndarray, y: np.ndarray, allow_nonfinite: bool = False) -> float:
        """The loss of a batch; arguments as for :meth:`value_and_gradient`."""
        value = self._at_once("value", theta, x, y)
        if isfinite(value):
            return value
        with self._turn:
            return super().value(theta, x, y, allow_nonfinite)

    def _at_once(self, kind: Kind, theta: np.ndarray, x: np.ndarray, y: np.ndarray, *others: np.ndarray) -> float:
        """The loss from one call of a compiled sweep, or NaN where all must be looked at again, at leisure.

        Numba takes numbers of the other byte order for its own, once it has met others that are not aligned.
        """
        dtype = self._dtype
        if not (theta.__class__ is x.__class__ is y.__class__ is ndarray and theta.dtype is x.dtype is dtype):
            return nan
        if y.dtype is not dtype and y.dtype is not OF_CLASSES:
            return nan
        for other in others:
            if other.__class__ is not ndarray or other.dtype is not dtype:
                return nan
        try:
            if not len(x):
                return nan
            if self._crew:
                self._crew.wake(len(x))
            door, plan = self._doors[kind][y.ndim], self._plans.at_hand[kind]
            if len(x) < self._least_for_blas:
                return door(plan.words, theta, x, y, *others)
            with ONE_THREAD:
                return door(plan.words, theta, x, y, *others)
        except TypeError:
            return nan
        except KeyError:
            return self._at_once(kind, theta, x, y, *others) if self._open(kind, y.ndim) else nan

    @_in_turn
    def _open(self, kind: Kind, ndim: int) -> bool:
        """Have a sweep at hand, for targets in rows (2) or as indices of classes (1), if the loss takes such."""
        if ndim not in ((2, 1) if LOSSES[self.net.loss].accepts_classes else (2,)):
            return False
        sweep, targets = getattr(self._sweeps, SWEEPS[kind]), "rows" if ndim == 2 else "classes"
        door = self._sweeps.door(sweep, self.backend.dtype, targets)
        self._doors.setdefault(kind, {})[ndim] = self._picky(door) if self._sweeps.TAKES_ALL else door
        if kind not in self._plans.at_hand:
            self._plans.of(kind, 1)
        return True

    def _picky(self, door: Callable[..., float]) -> Callable[..., float]:
        """A sweep in plain Python that takes the same arrays as a compiled one."""

        def sweep(words: np.ndarray, theta: np.ndarray, x: np.ndarray, y: np.ndarray, *others: np.ndarray) -> float:
            arrays = (theta, x, y, *others)
            if not (self._can_be_read(*arrays) and all(array.flags.writeable for array in arrays)):
                raise TypeError("arrays must be as compiled sweeps take them")
            return door(words, *arrays)

        return sweep

    @_in_turn
    def input_gradient(self, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The gradient of the loss of the batch with respect to x, (batch, n_inputs)."""
        arguments, out = self._checked(theta, x, y), np.empty(x.shape, self._dtype)
        plan = self._plans.of("gradient", len(x), wants_inputs=True)
        step = self.net.n_inputs * self._dtype.itemsize
        self._run(plan, arguments, GRADIENT=arguments.out, X_BAR=out, X_BAR_STEP=step)
        return self._finite("the input gradient", out)

    @_in_turn
    def per_example_gradients(self, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The gradient of the loss of each sample, not divided by the batch and without penalties, (batch, n_params).

        Raises
        ------
        ValueError
            If samples are coupled, as by batch norm in training.
        """
        if self.net.program.couples_samples:
            wanted = "samples must not depend on one another for gradients of each"
            raise ValueError(f"{wanted}, got {self.net}; give BatchNorm its statistics")
        arguments, out = self._checked(theta, x, y), np.empty((len(x), self.net.n_params), self._dtype)
        program, given = self.net.program.without_totals, dict[str, Any]()
        if program.masks:
            masks = np.concatenate(program.draw_masks(len(x)), axis=1, dtype=self._dtype)
            given = {"MASKS": masks, "MASKS_WIDTH": masks.shape[1]}
        plan = self._plans.of("gradient", 1, program=program, name="example", tile=1)
        step = self.net.n_params * self._dtype.itemsize
        self._run(plan, arguments, GRADIENT=out, GRADIENT_STEP=step, DIVISOR=1, **given)
        return self._finite("gradients of examples", out)

    @_in_turn
    def jvp(
        self, theta: np.ndarray, x: np.ndarray, theta_dot: np.ndarray, x_dot: np.ndarray | None = None
    ) -> np.ndarray:
        """The Jacobian-vector product of the outputs, (batch, n_outputs).

        Parameters
        ----------
        theta_dot : (n_params,)
        x_dot : (batch, n_inputs), or None for zeros
        """
        targets = no_targets(self.net, theta, x)
        arguments, out = self._checked(theta, x, targets), np.empty(targets.shape, self._dtype)
        plan = self._plans.of("jvp", len(x), program=self.net.program.up_to_outputs)
        along = self._direction(theta, x, theta_dot, x_dot)
        self._run(plan, arguments, Y=0, OUTPUTS_DOT=out, **along)
        return self._finite("the Jacobian-vector product", out)

    @_in_turn
    def vjp(self, theta: np.ndarray, x: np.ndarray, outputs_bar: np.ndarray) -> np.ndarray:
        """The vector-Jacobian product of the outputs with respect to theta, (n_params,).

        Parameters
        ----------
        outputs_bar : (batch, n_outputs)
        """
        targets = no_targets(self.net, theta, x)
        arguments = self._checked(theta, x, targets)
        plan = self._plans.of("vjp", len(x), program=self.net.program.up_to_outputs)
        seeds = checked_like("outputs_bar", outputs_bar, targets)
        self._run(plan, arguments, Y=0, OUTPUTS_BAR=seeds, GRADIENT=arguments.out)
        return self._finite("the vector-Jacobian product", arguments.out)

    def hvp(
        self,
        theta: np.ndarray,
        x: np.ndarray,
        y: np.ndarray,
        theta_dot: np.ndarray,
        x_dot: np.ndarray | None = None,
    ) -> np.ndarray:
        """The change of the gradient along a direction, (n_params,): the Hessian times ``theta_dot`` if x stays.

        Forward over reverse [Pearlmutter 1994]. At kinks it is that of the piece whose slope the gradient takes.

        Parameters
        ----------
        theta_dot : (n_params,)
        x_dot : (batch, n_inputs), or None for zeros
        """
        self._check_twice_differentiable()
        out = np.empty(self.net.n_params, self._dtype)
        if x_dot is None:
            value = self._at_once("hvp", theta, x, y, theta_dot, out)
            if isfinite(value):
                return out
        arguments, along = self._checked(theta, x, y), self._direction(theta, x, theta_dot, x_dot)
        with self._turn:
            self._run(self._plans.of("hvp", len(x)), arguments, GRADIENT_DOT=out, **along)
        return self._finite("the Hessian-vector product", out)

    @_in_turn
    def gauss_newton_product(
        self, theta: np.ndarray, x: np.ndarray, y: np.ndarray, theta_dot: np.ndarray
    ) -> np.ndarray:
        """J^T H J theta_dot, (n_params,): J the Jacobian of the outputs, H the Hessian of the loss in them.

        Penalties have no part in it [Schraudolph 2002].
        """
        arguments = self._checked(theta, x, y)
        plan = self._plans.of("gauss_newton", len(x), program=self.net.program.without_totals)
        self._run(plan, arguments, GRADIENT=arguments.out, **self._direction(theta, x, theta_dot, None))
        return self._finite("the Gauss-Newton product", arguments.out)

    @_in_turn
    def hessian(self, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """All second derivatives with respect to theta, (n_params, n_params), for networks that are small enough."""
        n = self.net.n_params
        if n > MAX_HESSIAN:
            raise ValueError(f"a full Hessian must have at most {MAX_HESSIAN} parameters, got {n}; use hvp")
        self._check_twice_differentiable()
        arguments, made = self._checked(theta, x, y), np.empty((n, n), self._dtype)
        plan, axis = self._plans.of("hvp", len(x)), np.zeros(n, self._dtype)
        for i in range(n):
            axis[i] = 1
            self._run(plan, arguments, GRADIENT_DOT=made[i], THETA_DOT=axis)
            axis[i] = 0
        return self._finite("the Hessian", made)

    def _checked(self, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> Arguments:
        return checked(self.net, theta, x, y, self.dtypes, allow_nonfinite=None)

    def _direction(
        self, theta: np.ndarray, x: np.ndarray, theta_dot: np.ndarray, x_dot: np.ndarray | None
    ) -> dict[str, Any]:
        along: dict[str, Any] = {"THETA_DOT": checked_like("theta_dot", theta_dot, theta)}
        if x_dot is not None:
            along |= {"X_DOT": checked_like("x_dot", x_dot, x), "X_DOT_STEP": self.net.n_inputs * self._dtype.itemsize}
        return along

    def _finite(self, name: str, made: np.ndarray) -> np.ndarray:
        if not np.isfinite(made).all():
            raise FloatingPointError(f"{self.backend!r} got {name} with numbers that are not finite for {self.net}")
        return made

    def _check_twice_differentiable(self) -> None:
        if "hvp" not in self._doors and (reason := no_second_derivative(self.net)):
            raise ValueError(reason)

    def _begin_anew(self) -> None:
        """In a forked process, where a thread that had its turn, and left a plan half in use, did not come along."""
        if self._turn.is_taken:
            self._plans.forget()
        self._turn.renew()

    def _run(self, plan: Plan, arguments: Arguments, **words: Any) -> float:
        """Run a plan with further words of its state: numbers, and arrays for their addresses."""
        if self._crew and plan.words[self._layout.CREW]:
            self._crew.wake(len(arguments.x))
        with self._blas(len(arguments.x)):
            return self._swept(plan, arguments, **words)

    def _swept(self, plan: Plan, arguments: Arguments, **words: Any) -> float:
        given = {"THETA": arguments.theta, "X": arguments.x, "Y": arguments.y, "IS_CLASSES": 0}
        given |= {"TOTAL": len(arguments.x)} | words
        before = plan.words.copy()
        try:
            self._set(plan.words, given)
            return self._sweeps.door(self._sweeps.run, self.backend.dtype)(plan.words, self._dtype.type(0))
        finally:
            plan.words[:] = before

    def _value(self, arguments: Arguments) -> float:
        return self._run(self._plans.of("value", len(arguments.x)), arguments)

    def _value_and_gradient(self, arguments: Arguments) -> float:
        return self._run(self._plans.of("gradient", len(arguments.x)), arguments, GRADIENT=arguments.out)

    def _blas(self, samples: int) -> AbstractContextManager[Any]:
        """Threads have samples of their own, and BLAS none beside them."""
        return ONE_THREAD if samples >= self._least_for_blas else nullcontext()

    def _predicted_error(self, arguments: Arguments) -> np.ndarray:
        return rounding_errors(self.net, *arguments.given, self.dtypes[0]).gradient


PREPARED: WeakSet[PreparedBackprop] = WeakSet()
"""All there are."""


def _begin_anew() -> None:
    for prepared in PREPARED:
        prepared._begin_anew()


os.register_at_fork(after_in_child=_begin_anew)
