"""`python -m trio_swarm.cli`, for where the console script is not on the path."""

from trio_swarm.cli import main

main(prog_name="trio-swarm")
