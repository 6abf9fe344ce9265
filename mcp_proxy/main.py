"""``python -m mcp_proxy.main``: the command line, under the name it has always had.

Once this module is imported, ``mcp_proxy.main`` is the module and no longer the function; so the module is callable,
and ``from mcp_proxy import main; main()`` works in either order.
"""

from __future__ import annotations

import sys
from types import ModuleType

from mcp_proxy.cli import main


class _CallableModule(ModuleType):
    def __call__(self) -> None:
        main()


sys.modules[__name__].__class__ = _CallableModule

if __name__ == "__main__":
    main()
