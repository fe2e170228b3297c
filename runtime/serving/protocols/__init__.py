"""The ways in which clients say rows and are told answers; each is pure, and knows nothing of HTTP connections."""
