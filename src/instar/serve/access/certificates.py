"""The certificate of a server that speaks TLS itself: read as it begins, and again when its files change, without a restart."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from instar.core.errors import BadInput
from instar.core.settings import Settings

LOOK_SECONDS = 30.0  # between two looks at the files

_log = logging.getLogger("instar.serve")


class Certificate:
    """A certificate and its key.

    Attributes:
        context: For connections that are made from now on.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = certificate, key
        self._seen = self._marks()
        self.context = _context(certificate, key)

    @classmethod
    def of(cls, settings: Settings) -> Certificate | None:
        """The one that settings name, if they do.

        Raises:
            BadInput: One of the two files is not named, or they cannot be read, or do not belong together.
        """
        certificate, key = settings.tls_certificate, settings.tls_key
        if certificate is None and key is None:
            return None
        if certificate is None or key is None:
            raise BadInput(
                "a certificate and its key are given together",
                subject="TLS", found="one of them", asked="--tls-cert and --tls-key",
            )  # fmt: skip
        return cls(certificate, key)

    def look(self) -> None:
        """Take up files that changed; those that do not fit change nothing, and that is said."""
        try:
            marks = self._marks()
            if marks == self._seen:
                return
            self._seen = marks
            self.context = _context(*self._files)
            _log.info("the certificate was read again: %s", self._files[0])
        except (BadInput, OSError) as problem:
            _log.error("the certificate in use stays: %s", problem)

    def pair(self) -> tuple[bytes, bytes]:
        """Key and certificate as they are in their files, for gRPC, which reads them once."""
        certificate, key = self._files
        return key.read_bytes(), certificate.read_bytes()

    def _marks(self) -> list[tuple[int, int]]:
        marks = []
        for file in self._files:
            try:
                status = file.stat()
            except OSError as problem:
                raise BadInput("that file cannot be read", subject=str(file), found=problem.strerror) from None
            marks.append((status.st_mtime_ns, status.st_ino))
        return marks


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2

    def no_password() -> str:
        raise BadInput("the key is encrypted, and nobody is there to be asked", subject=str(key), asked="a plain key")

    try:
        context.load_cert_chain(certificate, key, no_password)
    except (OSError, ssl.SSLError) as problem:
        raise BadInput(
            "the certificate and its key cannot be used together", subject=f"{certificate}, {key}", found=str(problem),
            asked="PEM files, the certificate with those that sign it behind it",
        ) from None  # fmt: skip
    return context
