"""Drivers: the code that starts agents on one engine. The only package that starts anything for a cluster."""
