"""Tokens a second of quantised language models, beside other engines and the bytes that a token needs.

``cases`` says what is measured and what is to be reached, ``models`` builds it, ``engines`` runs it, ``peers`` talks to
other engines, ``measuring`` interleaves all of them, ``page`` shows the record.
"""
