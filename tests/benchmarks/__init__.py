"""Figures, as ratios against a peer in the same run. Each module is a command; tests run its quick form."""
