"""Quantised, sparsely executed models through transformers' own `from_pretrained` and `save_pretrained`.

Importing this registers :class:`LazyConfig` with transformers, which `import lazyneuron` alone does not load.
"""

from lazyneuron.hf.config import LazyConfig
from lazyneuron.hf.quantizer import LazyQuantizer

__all__ = ["LazyConfig", "LazyQuantizer"]
