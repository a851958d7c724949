"""What tests of programs that use trio_swarm need, and its own: leak checks, scripted upstreams, slow stores."""
