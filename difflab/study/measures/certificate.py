"""Certificate: how many entries are proven to all their digits, and what it takes to certify them by another route."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from difflab import reference as references
from difflab.backends import Certified
from difflab.backends.certified import ENCLOSED, KINK, ROUNDED
from difflab.study.measures.subject import Subject


def measure(subject: Subject) -> dict[str, Any]:
    """Columns of the certified back-end; others have no certificate."""
    if not isinstance(subject.prepared.backend, Certified):
        return {}
    reference = subject.reference
    columns: dict[str, Any] = {
        f"{status}_entries": int((reference.status == status).sum()) for status in (ROUNDED, ENCLOSED, KINK)
    }
    started = perf_counter()
    certificate = references.verify(reference)
    columns["certificate_seconds"] = perf_counter() - started
    if certificate.routes:
        columns["certificate_detects"] = max(route.detects for route in certificate.routes)
    return columns
