"""Picture bytes -> verdict, without torch or pandas. The one room of the pipeline that the bot imports.

What a program around it needs besides is here: the errors, the cache root, and how a command ends.
"""

from stages.workspace.cache import cache_root
from stages.workspace.errors import MLpyError, ModelError, PictureError, run

__all__ = ["MLpyError", "ModelError", "PictureError", "cache_root", "run"]
