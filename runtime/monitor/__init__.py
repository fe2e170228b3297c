"""The monitor service: reads captured traffic, scores drift and quality, and publishes labelled windows to the lake."""
