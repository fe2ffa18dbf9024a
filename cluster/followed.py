"""The operator's file while a command goes on: it may be edited meanwhile, and be wrong for a moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common import config
from common.config_errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from common.config import Config


class Followed:
    """A configuration file, or the embedded default; `fault` says what is wrong with it by now. Raises ConfigError."""

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.fault = ""
        self.config = self._load()

    def look(self) -> Config:
        """What the file means, as long as nothing is wrong with it."""
        try:
            self.config = self._load()
            self.fault = ""
        except ConfigError as error:
            self.fault = str(error)
        return self.config

    def _load(self) -> Config:
        return config.load(self.file) if self.file else config.read(None)
