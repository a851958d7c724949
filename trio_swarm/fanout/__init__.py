"""Fan-out: one change, many readers. A client is a position in a journal, not a queue."""
