"""trio_swarm."""
