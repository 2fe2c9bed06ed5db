"""Metrics in metres, trivial opponents, intervals."""
