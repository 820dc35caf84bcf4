"""Strategies: they decide how often a model is asked, with which action, and which of its answers is kept.

Most of them only decide: see ``base.py`` and ``several.py``. ``plan.py`` is the contract, ``engine/`` carries it out.
"""

from mellea_sc._lazy import export_lazily

export_lazily(__name__)
