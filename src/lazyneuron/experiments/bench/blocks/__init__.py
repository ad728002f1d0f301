"""Speed, quality and memory of certified execution beside its alternatives, on synthetic blocks.

For `lazyneuron bench` and its page. A new baseline is a file in `baselines/` and a name in `baselines/registry.py`;
`truth.py` judges every candidate, so what it calls right decides which times are shown.
"""
