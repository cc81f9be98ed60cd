"""Benchmarks of a session: runs, report, machine and power."""
