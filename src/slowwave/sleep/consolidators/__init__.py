"""What writes a window into mid-term memory while the model sleeps: a file a consolidator."""
