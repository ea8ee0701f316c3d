"""Compressed bodies of HTTP requests: the header ``Content-Encoding``.

A few bytes can stand for gigabytes. Decompression therefore stops at the limit for a body.
"""

import zlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from backports.zstd import DecompressionParameter, ZstdDecompressor, ZstdError

from watchkeeper.serving.errors import RequestError, TooLargeError, UnsupportedCodingError

# Several streams may follow each other, but each costs time, even an empty one.
_MAX_STREAMS = 64
_GZIP = 16  # zlib adds it to the size of the window for the format of gzip
_ZSTD_WINDOW = 23  # 8 MiB: what a server must support and may refuse to exceed (RFC 9659)

_DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    "gzip": partial(zlib.decompressobj, zlib.MAX_WBITS | _GZIP),
    "deflate": zlib.decompressobj,
    "zstd": partial(
        ZstdDecompressor, options={DecompressionParameter.window_log_max: _ZSTD_WINDOW}
    ),
}
CODINGS = ", ".join(_DECOMPRESSORS)


def read_coding(headers: Mapping[str, str]) -> str | None:
    """Return the coding of the body, or None if it is not compressed.

    Args:
        headers: The headers of the request; names are in lower case.

    Raises:
        UnsupportedCodingError: This server does not support the coding.
    """
    value = headers.get("content-encoding")
    if value is None:
        return None
    coding = value.strip().lower()
    if coding in _DECOMPRESSORS:
        return coding
    if coding in ("", "identity"):
        return None
    if coding == "x-gzip":  # its name before HTTP/1.1
        return "gzip"
    raise UnsupportedCodingError(
        f"content encoding {value!r} is not served; send one of {CODINGS}, or plain bytes"
    )


def decompress(body: bytes, coding: str, limit: int) -> bytes:
    """Return the decompressed body.

    Args:
        body: The body as it came.
        coding: What :func:`read_coding` returned.
        limit: How many bytes the result may have. At most one more is decompressed.

    Raises:
        TooLargeError: The result is larger than the limit.
        RequestError: The body is not complete and valid in its coding.
    """
    parts: list[bytes] = []
    room = limit
    for _ in range(_MAX_STREAMS):
        decompressor = _DECOMPRESSORS[coding]()
        try:
            parts.append(decompressor.decompress(body, room + 1))
        except (zlib.error, ZstdError) as error:
            raise RequestError(f"the body is not valid {coding}: {error}") from error
        room -= len(parts[-1])
        if room < 0:
            raise TooLargeError(f"the decompressed body is over the limit of {limit} bytes")
        if not decompressor.eof:
            raise RequestError(f"the body is not valid {coding}: it ends in the middle")
        body = decompressor.unused_data
        if not body:
            return b"".join(parts)
    raise RequestError(f"the body has more than {_MAX_STREAMS} {coding} streams; send one")
