"""A certificate and its key, looked at before they are needed: what is wrong with them is said in a sentence.

Python's own errors for them name neither the file nor the fault, and for a key with a passphrase it asks the terminal.
"""

import ssl
from pathlib import Path
from typing import Final

from trio_swarm.errors import SettingsError

_CERTIFICATE: Final = b"-----BEGIN CERTIFICATE-----"
_KEY: Final = b"PRIVATE KEY-----"  # of whatever algorithm


def check_certificate(certfile: str, keyfile: str) -> None:
    """Refuse a pair of PEM files that TLS cannot be served with. Neither (`""`) is none, and right.

    Raises:
        SettingsError: one is missing, cannot be read, is not what it should be, or is not the other's.
    """
    if not certfile and not keyfile:
        return
    if not certfile or not keyfile:
        given, other = ("certfile", "keyfile") if certfile else ("keyfile", "certfile")
        raise SettingsError(given, f"TLS needs both files; give {other} as well (it may be the same file)")
    _look_for(_CERTIFICATE, "certfile", certfile, "no certificate")
    _look_for(_KEY, "keyfile", keyfile, "no private key")

    def passphrase() -> str:
        raise SettingsError("keyfile", f"{keyfile} is locked with a passphrase, and nobody is here to type it")

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certfile, keyfile, passphrase)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise SettingsError("keyfile", f"{keyfile} is not the key of the certificate in {certfile}") from error
        raise SettingsError("certfile", f"{certfile} and {keyfile} cannot be used: {error}") from error


def _look_for(mark: bytes, where: str, path: str, missing: str) -> None:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise SettingsError(where, f"{path} cannot be read: {error.strerror}") from error
    if mark not in content:
        raise SettingsError(where, f"{path} holds {missing} in PEM")
