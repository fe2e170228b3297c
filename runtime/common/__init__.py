"""Shared by all packages of the runtime: errors, settings, ids, secrets, files, HTTP and the frame of a service."""
