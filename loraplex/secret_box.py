"""What must not be stored in clear (tokens of users), encrypted with the installation's key."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken


class NotReadable(Exception):
    """It was locked with another key."""


class SecretBox:
    """Fernet (AES-CBC and HMAC). The key: LORAPLEX_SECRET_KEY, or a file of the home folder that is
    made at first use and only its owner reads."""

    def __init__(self, key: str, file: Path) -> None:
        self._key = key
        self._file = file

    def lock(self, secret: str) -> str:
        return self._fernet().encrypt(secret.encode()).decode()

    def open(self, locked: str, within_s: int | None = None) -> str:
        """Raises NotReadable, also for what was locked longer than `within_s` ago."""
        try:
            return self._fernet().decrypt(locked.encode(), within_s).decode()
        except InvalidToken as wrong:
            raise NotReadable("It was locked with another LORAPLEX_SECRET_KEY.") from wrong

    def _fernet(self) -> Fernet:
        return Fernet(self._key or self._from_file())

    def _from_file(self) -> str:
        if not self._file.exists():
            handle, made = tempfile.mkstemp(dir=self._file.parent)  # for its owner alone
            with os.fdopen(handle, "w") as file:
                file.write(Fernet.generate_key().decode())
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):  # another process was faster: its key is the one
                os.link(made, self._file)
            os.unlink(made)
        return self._file.read_text()
