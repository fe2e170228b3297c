"""Figures, as ratios against a peer in the same run. Each module is a command, which exits with 1 on a missed goal."""
