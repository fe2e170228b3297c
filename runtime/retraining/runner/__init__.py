"""The service which runs trainings where the retraining service must not: the commands it was told of, and no other.

It knows no lake and no registry, and it has no way to start anything outside its own container.
"""
