"""Provenance: enough to judge a figure by, and nothing about whose machine it was."""

import getpass
import json
import os
import platform
import re
import subprocess
from pathlib import Path

import pytest

from difflab.study import provenance
from difflab.study.report import machine


def test_the_record_names_machine_versions_and_threads():
    record = provenance.environment()
    assert record["processor"]
    assert record["memory_bytes"] > 2**28
    assert record["packages"]["numpy"] == __import__("numpy").__version__
    assert record["python"].endswith(platform.python_version())
    assert {pool["user_api"] for pool in record["blas"]} >= {"blas"}


def test_the_record_holds_no_path_host_or_user():
    text = json.dumps(provenance.environment())
    private = {platform.node(), str(Path.home()), str(Path.cwd()), os.environ.get("USER", "")} - {""}
    assert not any(f'"{word}' in text or f"{word}/" in text for word in private)
    assert not re.search(r'"/\w+/', text)
    assert getpass.getuser() == "root" or f'"{getpass.getuser()}"' not in text


def test_a_worker_has_one_thread_and_picks_its_own_kernels(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    variables = provenance.worker_environment()
    assert "OPENBLAS_CORETYPE" not in variables
    assert all(variables[name] == "1" for name in provenance.THREAD_VARIABLES)


def test_equal_records_have_one_identity():
    record = provenance.environment()
    assert provenance.identity(record) == provenance.identity(dict(reversed(record.items())))
    assert provenance.identity(record) != provenance.identity(record | {"processor": "another"})


def test_the_commit_is_that_of_the_sources():
    here = Path(provenance.__file__).parent
    found = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=here, capture_output=True, text=True)
    if found.returncode:
        pytest.skip("not a git checkout")
    assert provenance.commit().removesuffix("-dirty") == found.stdout.strip()


def test_the_sentence_on_the_machine_says_what_a_reader_needs():
    record = provenance.environment() | {"commit": "abc"}
    sentence = machine([record, record])
    assert sentence.count("Measured on") == 1
    assert "numba" in sentence
    assert "at commit abc" in sentence
