"""The retraining service: trains and promotes a new version of a model when an alert fires."""
