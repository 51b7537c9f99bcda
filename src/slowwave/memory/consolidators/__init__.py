"""What writes the ledger, rather than a window, into mid-term memory: a file a consolidator."""
