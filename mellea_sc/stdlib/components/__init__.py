"""What a user asks a model with."""

from __future__ import annotations

from mellea_sc.core.base import CBlock, Component
from mellea_sc.stdlib.components.chat import as_chat_history, as_generic_chat_history
from mellea_sc.stdlib.components.instruction import Instruction
from mellea_sc.stdlib.components.message import Message
from mellea_sc.stdlib.components.mobject import MObject, MObjectProtocol, Query, Transform
from mellea_sc.stdlib.components.simple import SimpleComponent

__all__ = [
    "CBlock",
    "Component",
    "Instruction",
    "MObject",
    "MObjectProtocol",
    "Message",
    "Query",
    "SimpleComponent",
    "Transform",
    "as_chat_history",
    "as_generic_chat_history",
]
