"""The main job from end to end: a real pretrained transformer on real text, before and after."""
