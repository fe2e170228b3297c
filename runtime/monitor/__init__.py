"""The monitor service: follows capture, scores drift, publishes labelled windows."""
