"""Errors, receipts, undo, records and environment facts; imports none of the other rooms."""
