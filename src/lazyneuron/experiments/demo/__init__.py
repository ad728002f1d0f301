"""The main job from end to end: a real pretrained transformer on real text, before and after.

For `lazyneuron demo`: pipeline.py calls the stages, settings.py says how much each does. The texts and the split are
chosen by hashes and the seed, so a change there makes the committed record another experiment's.
"""
