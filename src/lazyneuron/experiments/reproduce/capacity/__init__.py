"""Capacity at constant cost: MLP blocks 4, 16 and 64 times as wide, of which a token uses about as much as before.

Not public: may change with any commit, as long as the records that the documentation shows can be made again.
"""
