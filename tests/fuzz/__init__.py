"""Parsers of what comes from the kernel, the disk or the network, and bytes that nobody meant.

`targets` says what each may do with any bytes. `test_targets` tries some thousands on every run; `python -m tests.fuzz
TARGET` goes on until it is stopped, led by coverage (make fuzz).
"""
