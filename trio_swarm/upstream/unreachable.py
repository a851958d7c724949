"""Why nobody was reached, in words: the kernel's, the resolver's or TLS's, and not a number of one of them."""

import os
import socket
import ssl
from collections.abc import Iterator


def why_unreachable(error: BaseException) -> str:
    """The reason in the error, or in the first behind it that has one."""
    return next((said for each in causes(error) if (said := _words(each))), str(error))


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and those behind it: that of Trio says that all addresses failed, and the first behind it says why."""
    while error is not None:
        yield error
        error = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__


def _words(error: BaseException) -> str | None:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate cannot be trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {(error.reason or str(error)).replace('_', ' ').lower()}"
    if isinstance(error, socket.gaierror):
        return error.strerror
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)  # Trio adds the address to the error's own
    return None
