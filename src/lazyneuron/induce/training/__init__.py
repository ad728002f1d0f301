"""Training towards fewer firing neurons: penalties, control by a requested density, distillation, refits, schedules.

For any training loop over found blocks; nothing here changes a model but its weights; what is borrowed is given back.
"""
