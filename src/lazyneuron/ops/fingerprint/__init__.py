"""Fingerprints of memory, piece by piece: by native operators, or by the checksum of the standard library."""
