"""The drift tests, one module each.

To add a test, write a module like `wasserstein.py` that ends in a `MEASURE`, and list it in `registry.py`.
"""
