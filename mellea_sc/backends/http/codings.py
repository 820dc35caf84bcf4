"""Decompresses bodies that servers send compressed although ``identity`` was requested.

A ``Content-Encoding`` that names no coding of RFC 9110, section 8.4.1 (``none``, ``utf-8``) means a plain body. So
does ``gzip`` on a body that is not gzip: some proxies decompress and forget to remove the label.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from zlib import _Decompress

_READABLE: Final = ("gzip", "x-gzip", "deflate")
_UNREADABLE: Final = ("br", "compress", "x-compress", "dcb", "dcz", "zstd")
_TEXT: Final = frozenset(b"\t\n\r" + bytes(range(0x20, 0x7F)))
_PIECE: Final = 256 * 1024
"""Bytes that are returned at once, because a small compressed body may expand to a huge one."""


def _codings(label: str) -> list[str]:
    return [coding.strip().lower() for coding in label.split(",")]


def unreadable_coding(label: str) -> str | None:
    """The coding in a ``Content-Encoding`` that cannot be decompressed, if there is one."""
    return next((coding for coding in _codings(label) if coding in _UNREADABLE), None)


def wants_inflating(label: str) -> bool:
    """Whether a ``Content-Encoding`` names a coding that an :class:`Inflater` can decompress."""
    return any(coding in _READABLE for coding in _codings(label))


class Inflater:
    """Inflates a body that is labelled ``gzip`` or ``deflate``, piece by piece; detects the format by its first bytes."""

    __slots__ = ("_begun", "_inflate", "_waiting")

    def __init__(self) -> None:
        self._inflate: _Decompress | None = None
        self._begun = False
        self._waiting = b""

    def take(self, data: bytes) -> None:
        """Take what was received."""
        self._waiting += data

    def give(self) -> bytes:
        """Return the next piece of the body; empty if more must be received first.

        Raises:
            zlib.error: the body is broken.
        """
        while self._waiting:
            if not self._begun:
                if len(self._waiting) < 2:
                    return b""
                self._begun = True
                self._inflate = _inflater_for(self._waiting)
            if self._inflate is None:
                data, self._waiting = self._waiting, b""
                return data
            data = self._inflate.decompress(self._waiting, _PIECE)
            self._waiting = self._inflate.unconsumed_tail
            if self._inflate.eof:
                # Some servers send a separate compressed body with each flush.
                self._waiting = self._inflate.unused_data
                self._begun = False
            if data:
                return data
        return b""


def _inflater_for(beginning: bytes) -> _Decompress | None:
    """A decompressor for a body with these first bytes; ``None`` for a plain body."""
    if beginning.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(16 + zlib.MAX_WBITS)
    if beginning[0] & 0x0F == 8 and int.from_bytes(beginning[:2], "big") % 31 == 0:
        return zlib.decompressobj()
    if all(byte in _TEXT for byte in beginning[:32]):
        return None
    # "deflate" without zlib's header, as old servers send it.
    return zlib.decompressobj(-zlib.MAX_WBITS)
