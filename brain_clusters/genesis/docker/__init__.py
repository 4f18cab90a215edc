"""The Docker driver: an agent is a container. The only package that imports Docker's SDK."""
