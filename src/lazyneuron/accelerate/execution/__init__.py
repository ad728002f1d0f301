"""Running an accelerated block: its packed weights, whether they are still the model's, and the checks of a call."""
