"""Moves the contents of a stack: out of one into an archive, and from that into another."""
