"""Reads, checks and explains stack configs. Imports no Pulumi."""
