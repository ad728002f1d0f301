"""An engine for tests: each token's vector is a row of a table; some formats are wrong in ways that are known."""

import json
import os

import encoder_inputs
import numpy as np


class Engine:
    def __init__(self, wanted):
        if wanted["format"] == "absent":
            import a_package_that_nobody_has  # noqa: F401
        self._inputs = encoder_inputs.Inputs(wanted["inputs"])
        table = np.load(os.path.join(wanted["model"], "table.npy"))
        self._table = table[::-1] if wanted["format"] == "wrong" else table
        self.facts = {"versions": {"table": "1"}, "settings": {"calibration": len(self._inputs.calibration)}}
        self._log = os.path.join(wanted["folder"], f"{wanted['format']}.json")
        self._seen = []

    def _run(self, batch):
        self._seen.append(batch["input_ids"][0].tolist())
        return self._table[batch["input_ids"]]

    def time(self, case, number, runs):
        return self._inputs.time(self._run, case, number, runs)

    def embed(self, path):
        self._inputs.embed(self._run, path)
        with open(self._log, "w") as file:
            json.dump(self._seen, file)
        return []
