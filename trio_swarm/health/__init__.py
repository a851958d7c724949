"""What the service says about itself: its statistics in one place, what it may cost in memory, and who may look."""
