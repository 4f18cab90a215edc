"""Agents as processes: the driver that wakes the hosts, and the host that supervises those of one machine."""
