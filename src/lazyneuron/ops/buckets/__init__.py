"""Buckets of rows: hashing, sums and predictions by bucket; definitions in plain torch, native operators beside."""
