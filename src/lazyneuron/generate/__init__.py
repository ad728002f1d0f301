"""Language models that generate: loading them quantised, decoding with them, and what a token cost.

For `cli` and users. A model is read layer by layer and never lies in memory as it was stored; transformers decodes.
"""

from lazyneuron.generate.decoding import Decoding, decode
from lazyneuron.generate.load import load_quantised
from lazyneuron.generate.perplexity import TextFit, fit_of

__all__ = ["Decoding", "TextFit", "decode", "fit_of", "load_quantised"]
