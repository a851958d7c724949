"""What crashed is started again: backoff and breaker decide (pure), the supervisor waits (Trio)."""
