"""The parser of HTTP/1.1 requests: httptools', but an offered ``Upgrade`` is ignored.

A server may ignore the offer of another protocol and answer over HTTP/1.1 (RFC 9110, section 7.8).
The JDK's client offers ``h2c`` by default. httptools treats every offer as accepted: it ends the
request after its head and leaves the body unparsed. So the head is parsed again without the offer.
"""

from typing import Any, Protocol

import httptools

_OFFER = b"upgrade"


class Receiver(Protocol):
    """What receives the parts of a request. It ignores a request while :func:`offers_upgrade`."""

    scope: Any
    url: bytes
    headers: list[tuple[bytes, bytes]]


def offers_upgrade(receiver: Receiver) -> bool:
    """Return whether the client offers another protocol. Names of headers are in lower case."""
    return any(name == _OFFER for name, _ in receiver.headers)


class RequestParser(httptools.HttpRequestParser):
    """Parses the requests of one connection.

    Args:
        receiver: Its methods are called with the parts of each request.
    """

    def __init__(self, receiver: Receiver) -> None:
        super().__init__(receiver)
        self._receiver = receiver

    def feed_data(self, data: Any) -> None:
        """Parse the next bytes of the connection.

        Args:
            data: Bytes or a view of bytes.

        Raises:
            HttpParserError: The bytes are not HTTP.
            HttpParserUpgrade: The method is CONNECT.
        """
        while True:
            try:
                return super().feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                if not offers_upgrade(self._receiver):
                    raise
                data = memoryview(data)[upgrade.args[0] :]
            super().feed_data(self._head_without_offer())

    def _head_without_offer(self) -> bytes:
        receiver = self._receiver
        line = f"{receiver.scope['method']} {receiver.url.decode()} HTTP/{self.get_http_version()}"
        fields = [b"%b: %b" % field for field in receiver.headers if field[0] != _OFFER]
        return b"\r\n".join((line.encode(), *fields, b"", b""))
