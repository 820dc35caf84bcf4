"""The library's logger, under Mellea's name for it."""

from __future__ import annotations

import logging


class MelleaLogger:
    """Mellea's accessor of the library's logger, which is ``logging.getLogger("mellea_sc")``."""

    @staticmethod
    def get_logger() -> logging.Logger:
        """The library's logger. It has no handler of its own."""
        return logging.getLogger("mellea_sc")
