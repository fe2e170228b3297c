"""From a decoded request to an answer: micro-batches, the model call, capture."""
