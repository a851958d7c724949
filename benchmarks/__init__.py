"""One file a question; see `README.md`. Bounded in count and time, and only on the loopback interface."""
