"""The journal: a bounded history of one object, and certain answers about what it has forgotten. Pure."""
