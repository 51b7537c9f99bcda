"""What notes that are written before a question save when it comes."""
