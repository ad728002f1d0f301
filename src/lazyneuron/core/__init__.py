"""The ground of every room: errors, receipts and undo, records, sealed files, batches, timing, facts of the machine.

For all rooms; it imports none of them and knows no model but as an `nn.Module`. What `receipt.py`, `record.py` and
`sealed.py` write is in users' files: fields may be added, and what was saved earlier has to be read.
"""
