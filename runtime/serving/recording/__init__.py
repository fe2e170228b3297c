"""Records what the server answered, and the labels that clients send later."""
