"""What is written to disk: safetensors and JSON, never pickle, never half."""
