"""The certificate of the server, for TLS between the gateway and the server.

Its files may be replaced while the process runs: connections that begin later get the new
certificate. With a certificate, the server answers over TLS only. The ports without TLS remain for
kubelet, whose probes have no authority, and answer health only.
"""

import logging
import ssl
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from watchkeeper.serving.mounted import current_folder

CERTIFICATE: Final = "tls.crt"
KEY: Final = "tls.key"

logger = logging.getLogger(__name__)


class Validity(NamedTuple):
    """When a certificate is valid."""

    begins: datetime
    ends: datetime


class Certificate:
    """A certificate and its key, as the files ``tls.crt`` and ``tls.key`` of a folder.

    Args:
        folder: The path of the folder.

    Attributes:
        context: What the HTTP server needs. It stays the same when the files are replaced.

    Raises:
        ValueError: The files are missing, or not a certificate with its key.
    """

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._problem = ""
        self.context = _new_context()
        try:
            self._pair = self._load()
        except OSError as error:  # an SSLError is one
            raise ValueError(
                f"WATCHKEEPER_CERTIFICATE={folder}: {error}; the folder needs a certificate in "
                f"{CERTIFICATE} and its key in {KEY}, both as PEM"
            ) from error

    @property
    def validity(self) -> Validity:
        """When the certificate in use is valid."""
        return _validity(self._pair[0])

    def is_replaced(self) -> bool:
        """Return whether the files have another certificate that can be used; may take a thread."""
        try:
            folder = current_folder(self._folder)
            if _read(folder) == self._pair:
                return False
            _check(folder)
        except OSError as error:
            if str(error) != self._problem:  # it is called every second
                logger.warning("%s: the last certificate stays: %s", self._folder, error)
            self._problem = str(error)
            return False
        self._problem = ""
        return True

    def use(self) -> None:
        """Use the certificate in the files from now on.

        Call it where connections begin, in the event loop: a context must not change in a thread
        while a connection is made from it.

        Raises:
            OSError: The files were replaced since they were checked. Check them again.
        """
        self._pair = self._load()
        logger.info("the certificate was replaced")

    def grpc_credentials(self) -> Any:
        """Return what the gRPC server needs; it asks for the certificate of each connection."""
        import grpc  # noqa: PLC0415 - settings are checked before it is imported

        def configuration() -> Any:
            certificate, key = self._pair
            return grpc.ssl_server_certificate_configuration([(key, certificate)])

        return grpc.dynamic_ssl_server_credentials(configuration(), configuration)

    def _load(self) -> tuple[bytes, bytes]:
        folder = current_folder(self._folder)
        _check(folder)  # a failure must not leave half a change
        self.context.load_cert_chain(folder / CERTIFICATE, folder / KEY)
        return _read(folder)


def _check(folder: Path) -> None:
    _new_context().load_cert_chain(folder / CERTIFICATE, folder / KEY)
    try:
        _validity((folder / CERTIFICATE).read_bytes())
    except ValueError as error:  # OpenSSL reads some files that others refuse
        raise OSError(f"{CERTIFICATE}: {error}") from error


def _validity(certificate: bytes) -> Validity:
    from cryptography import x509  # noqa: PLC0415 - takes 0.1 s, which a server without TLS saves

    first = x509.load_pem_x509_certificate(certificate)  # the others are its authorities
    return Validity(first.not_valid_before_utc, first.not_valid_after_utc)


def _new_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _read(folder: Path) -> tuple[bytes, bytes]:
    return (folder / CERTIFICATE).read_bytes(), (folder / KEY).read_bytes()
