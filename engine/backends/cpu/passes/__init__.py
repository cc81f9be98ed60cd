"""Rewrites of the graph for the CPU."""
