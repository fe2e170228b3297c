"""The drift tests, one module each. To add one, see `registry.py`."""
