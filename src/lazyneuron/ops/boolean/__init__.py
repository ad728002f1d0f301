"""Operators on the Boolean cube: Walsh transform, products with characters, Hamming distances; numpy, and native."""
