"""Scripts that run public clients in environments of their own."""
