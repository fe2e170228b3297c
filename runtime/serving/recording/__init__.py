"""Records answered requests, and the labels that clients send later."""
