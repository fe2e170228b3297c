"""Compares tidemill's answers with those of `mlflow models serve`."""
