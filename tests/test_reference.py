"""Reference files: bit-exact there and back, written whole or not at all, and harmless whatever they hold."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path

import naive
import numpy as np
import pytest

import difflab as dl
from difflab import files, reference
from difflab.reference import ARRAYS, InvalidReference


NET = dl.MLP(3, [dl.Dense(2, "relu"), dl.Dense(2, "tanh")], reduction="sum")


@cache
def made(seed: int = 0, net: dl.MLP = NET) -> dl.Reference:
    return dl.reference_gradient(net, *naive.random_problem(net, np.random.default_rng(seed), batch=2))


@pytest.fixture
def written(tmp_path) -> Path:
    path = tmp_path / "truth.npz"
    reference.write(made(), path)
    return path


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewrite(path: Path, changed: dict[str, bytes | None], compression: int = zipfile.ZIP_STORED) -> None:
    """The file with some members replaced, or left out where None."""
    kept = {name: content for name, content in {**members(path), **changed}.items() if content is not None}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in kept.items():
            archive.writestr(name, content)


def npy(array: np.ndarray) -> bytes:
    buffer = BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def header_of(path: Path) -> dict:
    with np.load(path) as file:
        return json.loads(file["header"].tobytes())


def rewrite_header(path: Path, text: str) -> None:
    rewrite(path, {"header.npy": npy(np.frombuffer(text.encode(), np.uint8))})


def complaint(path: Path) -> str:
    """The one sentence with which a file is refused."""
    with pytest.raises(InvalidReference) as raised:
        reference.read(path)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)
    return str(raised.value)


# --- there and back


def assert_same_bits(a: dl.Reference, b: dl.Reference) -> None:
    for field in dataclasses.fields(a):
        one, other = getattr(a, field.name), getattr(b, field.name)
        assert type(one) is type(other)
        if isinstance(one, np.ndarray):
            assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
        else:
            assert one == other


@pytest.mark.parametrize("seed", range(10))
def test_a_reference_comes_back_bit_by_bit(seed, tmp_path):
    net = naive.random_network(np.random.default_rng(seed))
    reference.write(made(seed, net), tmp_path / "truth.npz")
    assert_same_bits(reference.read(tmp_path / "truth.npz"), made(seed, net))


def test_single_precision_arguments_come_back_in_single_precision(tmp_path):
    theta, x = NET.init().astype(np.float32), np.ones((1, 3), np.float32)
    truth = dl.reference_gradient(NET, theta, x, np.array([0]))
    reference.write(truth, tmp_path / "truth.npz")
    assert_same_bits(reference.read(tmp_path / "truth.npz"), truth)


def test_what_was_read_can_judge_and_be_checked_again(written):
    truth = reference.read(written)
    assert dl.discrepancy(truth.gradient, truth).error_relative < np.finfo(float).eps
    again = dl.reference_gradient(truth.net, truth.theta, truth.x, truth.y)
    assert_same_bits(again, truth)


def test_the_header_states_network_and_conventions(written):
    header = header_of(written)
    assert header["format"] == "difflab reference 3"
    assert header["network"]["n_inputs"] == 3
    assert [layer["kind"] for layer in header["network"]["layers"]] == ["dense", "dense"]
    assert [layer["activation"] for layer in header["network"]["layers"]] == ["relu", "tanh"]
    assert "weight is (out, in)" in header["conventions"]


def test_the_header_states_the_certificate(written):
    (route,) = header_of(written)["certificate"]["routes"]
    assert route["name"] == "power series"
    assert (route["n_checks"], route["holds"]) == (2, True)
    assert route["gradient_radius"] + route["route_radius"] < route["detects"] < 1e-20


def test_a_thorough_certificate_comes_back(tmp_path):
    truth = dl.reference_gradient(NET, made().theta, made().x, made().y, thorough=True)
    reference.write(truth, tmp_path / "truth.npz")
    assert len(truth.certificate.routes) == 3
    assert reference.read(tmp_path / "truth.npz").certificate == truth.certificate


def test_a_network_whose_widths_are_numpy_integers_can_be_written(tmp_path):
    net = dl.MLP.dense(np.array([3, 2, 2]))
    reference.write(made(0, net), tmp_path / "truth.npz")
    assert reference.read(tmp_path / "truth.npz").net == net


def test_a_network_of_all_layers_comes_back(tmp_path):
    inner = dl.Residual([dl.Dense(2, "prelu(0.5)", share="w"), dl.BatchNorm(), dl.Dropout(0.5, seed=3)])
    layers = [dl.Maxout(4), dl.Multiply(2), inner, dl.BatchNorm([0.0, 0.1], [1.0, 2.0]), dl.Softmax()]
    net = dl.MLP(2, [*layers, dl.Elementwise("swish")], "squared_error", l1=0.01, l2=0.1)
    rng = np.random.default_rng(0)
    truth = dl.reference_gradient(net, rng.normal(size=net.n_params), rng.normal(size=(3, 2)), rng.normal(size=(3, 2)))
    reference.write(truth, tmp_path / "truth.npz")
    assert_same_bits(reference.read(tmp_path / "truth.npz"), truth)


def test_a_loss_beyond_every_float_comes_back(tmp_path):
    net = dl.MLP.dense([1, 1], loss="squared_error")
    truth = dl.reference_gradient(net, np.array([1e200, 0.0]), np.ones((1, 1)), np.ones((1, 1)))
    reference.write(truth, tmp_path / "truth.npz")
    assert reference.read(tmp_path / "truth.npz").value == np.inf


# --- whole or not at all


def break_fsync(monkeypatch):
    def full_disk(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)


def break_replace(monkeypatch):
    def refused(*_):
        raise PermissionError("planted")

    monkeypatch.setattr(os, "replace", refused)


def interrupt(monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)


@pytest.mark.parametrize("disaster", [break_fsync, break_replace, interrupt])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(disaster, written, monkeypatch):
    before = written.read_bytes()
    disaster(monkeypatch)
    with pytest.raises((OSError, KeyboardInterrupt)):
        reference.write(made(1), written)
    assert written.read_bytes() == before
    assert os.listdir(written.parent) == [written.name]


@pytest.mark.parametrize("disaster", [break_fsync, break_replace, interrupt])
def test_a_failed_first_write_leaves_no_file_at_all(disaster, tmp_path, monkeypatch):
    disaster(monkeypatch)
    with pytest.raises((OSError, KeyboardInterrupt)):
        files.write_atomically(tmp_path / "new", b"content")
    assert os.listdir(tmp_path) == []


def test_a_second_write_replaces_the_first(written):
    reference.write(made(1), written)
    assert_same_bits(reference.read(written), made(1))
    assert os.listdir(written.parent) == [written.name]


def test_a_file_is_readable_by_others_and_its_folder_is_made(tmp_path):
    files.write_atomically(tmp_path / "a" / "b" / "file", b"content")
    assert (tmp_path / "a" / "b" / "file").stat().st_mode & 0o777 == 0o644


# --- hostile files


class Bomb:
    """An object whose unpickling makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["header", *ARRAYS, "extra"])
def test_pickled_objects_are_refused_and_nothing_in_them_is_executed(name, written, tmp_path):
    trap = tmp_path / "executed"
    array = np.empty(1, object)
    array[0] = Bomb(trap)
    rewrite(written, {f"{name}.npy": npy(array)})
    assert "allow_pickle=False" in complaint(written)
    assert not trap.exists()


def test_a_plain_pickle_is_refused_and_not_executed(written, tmp_path):
    trap = tmp_path / "executed"
    written.write_bytes(pickle.dumps(Bomb(trap)))
    assert "npz file of plain arrays" in complaint(written)
    assert not trap.exists()


def test_the_trap_is_one():
    """Unpickling it does execute: else the two tests above would show nothing."""
    path = Path(os.getcwd()) / f"trap-{os.getpid()}"
    try:
        pickle.loads(pickle.dumps(Bomb(path)))  # noqa: S301
        assert path.exists()
    finally:
        path.rmdir()


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"PK\x05\x06" + b"\0" * 18, b"\x93NUMPY", b"theta = [1]", b"\0" * 10_000]
)
def test_what_is_no_npz_file_at_all_is_refused(content, written):
    written.write_bytes(content)
    complaint(written)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(part, written):
    content = written.read_bytes()
    written.write_bytes(content[: int(part * len(content))])
    complaint(written)


@pytest.mark.parametrize("name", ["header", *ARRAYS])
def test_a_missing_array_is_refused(name, written):
    rewrite(written, {f"{name}.npy": None})
    complaint(written)


def test_an_array_too_many_is_refused(written):
    rewrite(written, {"extra.npy": npy(np.zeros(3))})
    assert "extra" in complaint(written)


@pytest.mark.parametrize("name", ["theta", "gradient", "residual", "radius", "lower", "upper"])
def test_arrays_that_do_not_fit_the_network_are_refused(name, written):
    rewrite(written, {f"{name}.npy": npy(np.zeros(3))})
    assert f"{NET.n_params}" in complaint(written).replace(str(written), "")


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("status", np.array(["rounded"])),
        ("status", np.zeros(NET.n_params)),
        ("x", np.zeros(3)),
        ("x", np.zeros((2, 7))),
        ("y", np.zeros(9)),
        ("gradient", np.zeros(NET.n_params, complex)),
        ("radius", np.zeros(NET.n_params, np.float32)),
        ("radius", np.full(NET.n_params, -1.0)),
        ("radius", np.full(NET.n_params, np.nan)),
        ("theta", np.zeros(NET.n_params, np.int8)),
    ],
)
def test_arrays_of_another_kind_than_was_written_are_refused(name, array, written):
    rewrite(written, {f"{name}.npy": npy(array)})
    complaint(written)


def nested_residual(depth: int) -> dict:
    layer: dict = {"kind": "softmax"}
    for _ in range(depth):
        layer = {"kind": "residual", "layers": [layer]}
    return layer


def with_network(header: dict, **changed: object) -> dict:
    return {**header, "network": {**header["network"], **changed}}


def with_route(header: dict, **changed: object) -> dict:
    """The header with its one route changed; what is None is left out."""
    (route,) = header["certificate"]["routes"]
    route = {name: entry for name, entry in {**route, **changed}.items() if entry is not None}
    return {**header, "certificate": {"routes": [route]}}


CERTIFICATES: dict[str, Callable[[dict], dict]] = {
    "no certificate": lambda header: {k: v for k, v in header.items() if k != "certificate"},
    "a certificate that is null": lambda header: {**header, "certificate": None},
    "a certificate that is a list": lambda header: {**header, "certificate": []},
    "a certificate without routes": lambda header: {**header, "certificate": {}},
    "a certificate with a field too many": lambda header: {**header, "certificate": {"routes": [], "run": "rm"}},
    "routes that are text": lambda header: {**header, "certificate": {"routes": "power series"}},
    "a certificate that does not hold": lambda header: with_route(header, holds=False),
    "a route without a verdict": lambda header: with_route(header, holds=None),
    "a verdict that is text": lambda header: with_route(header, holds="true"),
    "a route with a field too many": lambda header: with_route(header, seed=0),
    "an unknown route": lambda header: with_route(header, name="\x1b[2Jtrust me"),
    "no checks": lambda header: with_route(header, n_checks=0),
    "checks that are no integer": lambda header: with_route(header, n_checks=0.5),
    "a negative radius": lambda header: with_route(header, gradient_radius=-1.0),
    "a radius that is text": lambda header: with_route(header, route_radius="0"),
    "no number for what it detects": lambda header: with_route(header, detects=float("nan")),
    "infinity for what it detects": lambda header: with_route(header, detects=float("inf")),
    "a route twice": lambda header: {
        **header, "certificate": {"routes": header["certificate"]["routes"] * 2}
    },
}  # fmt: skip

HEADERS: dict[str, Callable[[dict], str]] = {
    "no JSON": lambda header: "{",
    "not UTF-8": lambda header: '"\udc80"'.encode("utf-8", "surrogateescape").decode("latin-1") + "\x80",
    "no object": lambda header: "[1]",
    "another format": lambda header: json.dumps({**header, "format": "difflab reference 2"}),
    "a field missing": lambda header: json.dumps({k: v for k, v in header.items() if k != "bits"}),
    "a field too many": lambda header: json.dumps({**header, "run": "rm -rf /"}),
    "a field of another type": lambda header: json.dumps({**header, "value": "0.5"}),
    "deep nesting": lambda header: "[" * 100_000,
    "other conventions": lambda header: json.dumps({**header, "conventions": "weight is (in, out)"}),
    "impossible bits": lambda header: json.dumps({**header, "bits": 2**60}),
    "negative bits": lambda header: json.dumps({**header, "bits": -1}),
    "an unknown activation": lambda header: json.dumps(
        with_network(header, layers=[{"kind": "dense", "units": 2, "activation": "__import__('os')"}])
    ),
    "an unknown loss": lambda header: json.dumps(with_network(header, loss="exec")),
    "no layers": lambda header: json.dumps(with_network(header, layers=[])),
    "no kind": lambda header: json.dumps(with_network(header, layers=[{"units": 2}])),
    "an unknown kind": lambda header: json.dumps(with_network(header, layers=[{"kind": "os.system", "units": 2}])),
    "a layer with a field too many": lambda header: json.dumps(
        with_network(header, layers=[{"kind": "softmax", "units": 2}])
    ),
    "a huge layer": lambda header: json.dumps(with_network(header, layers=[{"kind": "dense", "units": 10**12}])),
    "too many parameters": lambda header: json.dumps(
        with_network(header, layers=[{"kind": "dense", "units": 10**6}] * 3)
    ),
    "residual layers too deep": lambda header: json.dumps(with_network(header, layers=[nested_residual(60)])),
    "a negative width": lambda header: json.dumps(with_network(header, n_inputs=-3)),
    "a smaller network": lambda header: json.dumps(with_network(header, n_inputs=1)),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_tampered_header_is_refused(case, written):
    rewrite_header(written, HEADERS[case](header_of(written)))
    complaint(written)


@pytest.mark.parametrize("case", CERTIFICATES)
def test_a_tampered_certificate_is_refused(case, written):
    rewrite_header(written, json.dumps(CERTIFICATES[case](header_of(written))))
    complaint(written)


def test_what_a_certificate_claims_is_not_believed_but_made_again(written):
    rewrite_header(written, json.dumps(with_route(header_of(written), detects=0.0, n_checks=10**9)))
    assert reference.verify(reference.read(written)) == made().certificate


def test_deep_nesting_in_a_field_that_nobody_asked_for_is_refused(written):
    network = json.dumps(header_of(written)["network"])
    nested = network[:-1] + ', "extra": ' + "[" * 100_000 + "]" * 100_000 + "}"
    header = json.dumps({**header_of(written), "network": "?"}).replace('"?"', nested)
    rewrite_header(written, header)
    complaint(written)


@pytest.mark.parametrize("name", ["header", "theta", "status"])
def test_a_member_that_is_no_array_is_refused(name, written):
    rewrite(written, {f"{name}.npy": None, name: b"plain bytes"})
    complaint(written)


def test_a_member_whose_bytes_were_changed_is_refused(written):
    content = bytearray(written.read_bytes())
    place = content.find(made().gradient.tobytes())
    content[place + 3] ^= 1
    written.write_bytes(content)
    assert "CRC" in complaint(written)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(written, monkeypatch):
    rewrite(written, {"theta.npy": npy(np.zeros(200_000))}, zipfile.ZIP_DEFLATED)
    assert written.stat().st_size < 100_000
    monkeypatch.setattr(reference, "MAX_FILE_BYTES", 10**6)
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("unpacked"))
    assert "must unpack to at most 1000000 bytes, got 160" in complaint(written)


def test_an_array_header_that_claims_8_terabytes_is_refused(written):
    claimed = npy(np.zeros(1)).replace(b"(1,), }" + b" " * 13, b"(1000000000000,), }" + b" ")
    assert b"1000000000000" in claimed
    rewrite(written, {"theta.npy": claimed})
    complaint(written)


def flipped(content: bytes, rng: np.random.Generator) -> bytes:
    """A few bytes replaced, mostly in the directory at the end, where sizes, methods and flags lie."""
    damaged = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        place = int(rng.integers(len(content))) if rng.integers(2) else -int(rng.integers(1, 700))
        damaged[place] = int(rng.integers(256))
    return bytes(damaged)


def test_a_thousand_damaged_files_are_read_as_written_or_refused(written):
    rng, content = np.random.default_rng(0), written.read_bytes()
    other = {}
    for _ in range(1000):
        written.write_bytes(flipped(content, rng))
        try:
            reference.read(written)
        except InvalidReference:
            continue
        except Exception as error:
            other[type(error).__name__] = str(error)
    assert other == {}


def test_a_file_that_is_not_there_is_not_called_invalid(tmp_path):
    with pytest.raises(FileNotFoundError):
        reference.read(tmp_path / "nothing.npz")


@pytest.mark.parametrize(("name", "number"), [("lower", 1e300), ("upper", -1e300), ("gradient", 1e300)])
def test_bounds_that_do_not_hold_the_gradient_are_refused(name, number, written):
    rewrite(written, {f"{name}.npy": npy(np.full(NET.n_params, number))})
    assert "bounds that do not hold" in complaint(written)


@pytest.mark.parametrize(("name", "number"), [("value", 99.0), ("value_lower", 1e9), ("value_upper", -1e9)])
def test_bounds_that_do_not_hold_the_value_are_refused(name, number, written):
    rewrite(written, {f"{name}.npy": npy(np.array(number))})
    assert "bounds that do not hold" in complaint(written)
