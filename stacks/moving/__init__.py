"""Exports the contents of a stack into an archive, and imports an archive into another stack."""
