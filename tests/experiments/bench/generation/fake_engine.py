"""An engine that computes nothing: what the worker loads in the tests. No lazyneuron here."""

import os
import time


class Engine:
    def __init__(self, wanted):
        if wanted["format"] == "missing":
            raise ModuleNotFoundError("No module named 'engine'")
        if wanted["format"] == "dead":
            os.write(2, b"out of luck\n")
            os._exit(3)
        print("an engine may print")
        self.facts = {"versions": {"fake": "1"}, "settings": {"threads": wanted["threads"]}, "bytes_a_token": 1000}

    def decode(self, prompt, tokens):
        if not prompt:
            raise ValueError("there is\nno prompt")
        return [float(len(prompt))] * tokens

    def prefill(self, prompt):
        began = time.process_time()
        while time.process_time() - began < 0.01:
            pass
        return [1.5]
