"""Stage 1: a folder of videos becomes a store of per-frame embeddings.

``__init__.pyi`` lists what other programs may import; it is loaded when it is used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
