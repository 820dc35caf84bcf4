"""Mellea's import path of :class:`ModelOption`, which is defined in the core."""

from mellea_sc.core.backend import ModelOption as ModelOption
