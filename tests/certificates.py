"""Certificates for servers of tests on 127.0.0.1, by the openssl command: keys are made anew each time."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

_CURVE = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
_HOST = ["-subj", "/CN=storage", "-addext", "subjectAltName=IP:127.0.0.1"]


def self_signed(folder: Path) -> ssl.SSLContext:
    """A server that nobody vouches for; its certificate is `folder`/server.pem."""
    _openssl(folder, "req", "-x509", *_CURVE, *_HOST, "-keyout", "server.key", "-out", "server.pem", "-days", "2")
    return _context(folder)


def signed(folder: Path) -> ssl.SSLContext:
    """A server that a CA of its own vouches for; that CA's certificate is `folder`/ca.pem."""
    _openssl(folder, "req", "-x509", *_CURVE, "-subj", "/CN=CA", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2")
    leaf = ["-addext", "basicConstraints=critical,CA:FALSE"]
    by = ["-CA", "ca.pem", "-CAkey", "ca.key"]
    _openssl(
        folder, "req", "-x509", *_CURVE, *_HOST, *leaf, *by, "-keyout", "server.key", "-out", "server.pem", "-days", "2"
    )
    return _context(folder)


def _context(folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    return context


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)
