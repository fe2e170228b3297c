"""The retraining service."""
