"""Sleep: where a stream is cut, the passes over a full window, and training through them."""
