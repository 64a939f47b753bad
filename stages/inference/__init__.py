"""Picture bytes -> verdict, without torch or pandas. The only package of `stages` that the bot imports.

So it also exports the few things of `stages.workspace` that the bot needs: errors, the cache root, `run` for commands.
"""

from stages.workspace.cache import cache_root
from stages.workspace.errors import MLpyError, ModelError, PictureError, run

__all__ = ["MLpyError", "ModelError", "PictureError", "cache_root", "run"]
