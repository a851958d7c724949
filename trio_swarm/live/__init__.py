"""The objects that ship: `hub` serves an upstream feed to many clients, `channel` what is published from outside."""
