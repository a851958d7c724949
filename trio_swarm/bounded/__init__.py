"""Collections with a number: what would grow with the outside world stops here."""
