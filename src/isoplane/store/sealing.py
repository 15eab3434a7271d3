"""Secrets at rest: what is written of the sealed resources is AES-256-GCM under a key that lies in a file of its own.

A sealed value is ``MARK | key id | nonce | length of the uid | uid | ciphertext``; resource, namespace, name and uid are
bound to it, so that one object's value cannot be passed off as another's.  The read model holds plain objects: sealing
is for the file, its log and its backups.

The key file holds one key a line, ``ID BASE64``. The first one writes, all of them read: a rotation puts a new one
first, seals everything anew, and drops the others last.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from isoplane.objects.kinds import SECRETS
from isoplane.store.errors import KeyRefused

KEYS = "keys"
"""The key file of a data directory, where no other is named."""

MARK = b"\x00S1"
"""No JSON begins like this."""

RESOURCES = frozenset((SECRETS.qualified,))
"""What is sealed."""

_ID, _NONCE, _LENGTH, _KEY_BYTES = 16, 12, 4, 32
_MOST_KEYS = 64
_HEADER = len(MARK) + _ID + _NONCE + _LENGTH


@dataclass(frozen=True, slots=True)
class Key:
    """``name`` stands in every value that it seals."""

    name: str
    secret: bytes

    def line(self) -> str:
        return f"{self.name} {base64.b64encode(self.secret).decode()}\n"


def new_key() -> Key:
    return Key(secrets.token_hex(_ID // 2), secrets.token_bytes(_KEY_BYTES))


class Keys:
    """The keys of one store. ``path``: where they lie, for messages."""

    def __init__(self, path: Path, keys: list[Key]) -> None:
        self.path = path
        self.keys = keys
        self._ciphers = {key.name: AESGCM(key.secret) for key in keys}
        self._prefix = MARK + keys[0].name.encode()

    @property
    def current(self) -> str:
        """The id of the key that writes."""
        return self.keys[0].name

    def seal(self, resource: str, namespace: str, name: str, uid: str, data: bytes) -> bytes:
        nonce = os.urandom(_NONCE)
        identity = uid.encode()
        sealed = self._ciphers[self.current].encrypt(nonce, data, _bound(resource, namespace, name, identity))
        return b"".join((self._prefix, nonce, len(identity).to_bytes(_LENGTH), identity, sealed))

    def unseal(self, resource: str, namespace: str, name: str, data: bytes) -> bytes:
        """The value; one that is not sealed as it is. Raises ValueError when it does not open, KeyRefused without its key."""
        if not data.startswith(MARK):
            return data
        key = key_of(data)
        cipher = self._ciphers.get(key)
        if cipher is None:
            raise missing(self.path, key)
        start = len(MARK) + _ID
        nonce = data[start : start + _NONCE]
        end = _HEADER + int.from_bytes(data[start + _NONCE : _HEADER])
        try:
            return cipher.decrypt(nonce, data[end:], _bound(resource, namespace, name, data[_HEADER:end]))
        except (InvalidTag, ValueError):
            raise ValueError(f"it does not open with key {key}: the value or its place was changed") from None

    def is_current(self, data: bytes) -> bool:
        """Whether a stored value is sealed by the key that writes."""
        return data.startswith(self._prefix)


def key_of(data: bytes) -> str:
    """The id of the key that sealed a value."""
    return data[len(MARK) : len(MARK) + _ID].decode("ascii", "replace")


def _bound(resource: str, namespace: str, name: str, uid: bytes) -> bytes:
    return json.dumps([resource, namespace, name, uid.decode("utf-8", "replace")]).encode()


def missing(path: Path, key: str) -> KeyRefused:
    return KeyRefused(
        f"the store is encrypted with key {key}, which {path} does not hold; nothing was changed. "
        "Put the key file back, or name it with --encryption-key FILE"
    )


def open_keys(path: Path, required: str) -> Keys:
    """The keys in ``path``; made with a new one when nothing was encrypted yet (``required`` is '').

    Raises KeyRefused: the file is open to others, is damaged, or does not hold the key that the store needs.
    """
    try:
        found = _read(path)
    except FileNotFoundError:
        if required:
            raise missing(path, required) from None
        found = [new_key()]
        write_keys(path, found)
    except OSError as error:
        raise KeyRefused(f"cannot read the encryption keys in {path}: {error.strerror}") from error
    if required and required not in {key.name for key in found}:
        raise missing(path, required)
    return Keys(path, found)


def _read(path: Path) -> list[Key]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(fd, "rb") as file:
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode):
            raise KeyRefused(f"{path} is no regular file: it cannot hold encryption keys")
        if about.st_mode & 0o077:
            raise KeyRefused(
                f"{path} holds encryption keys and is open to others (mode {stat.S_IMODE(about.st_mode):04o}): "
                f"chmod 0600 {path}"
            )
        lines = file.read(_MOST_KEYS * 128 + 1).splitlines()
    keys: list[Key] = []
    for number, line in enumerate(lines, 1):
        name, _, encoded = line.decode("ascii", "replace").strip().partition(" ")
        try:
            secret = base64.b64decode(encoded, validate=True)
        except ValueError:
            secret = b""
        if len(name) != _ID or len(secret) != _KEY_BYTES or len(keys) == _MOST_KEYS:
            raise KeyRefused(f"{path}, line {number} is no encryption key (ID BASE64); nothing was changed")
        keys.append(Key(name, secret))
    if not keys:
        raise KeyRefused(f"{path} holds no encryption key; put the right file back. Nothing was changed")
    return keys


def write_keys(path: Path, keys: list[Key]) -> None:
    """Replace the key file atomically and durably. Raises KeyRefused when it cannot be written."""
    new = path.with_name(path.name + ".new")
    try:
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
            file.writelines(key.line() for key in keys)
            file.flush()
            os.fsync(file.fileno())
        new.rename(path)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise KeyRefused(f"cannot write the encryption keys to {path}: {error.strerror}") from error
