"""Agents as processes of this machine: the driver, the zygotes that it forks them from, and how they are followed."""
