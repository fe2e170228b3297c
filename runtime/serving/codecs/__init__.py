"""Reads and writes the formats of request and response bodies: JSON, Arrow, CSV, tensors, compression."""
