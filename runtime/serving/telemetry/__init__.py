"""What the server reports about itself: metrics, traffic counts, worker status."""
