"""The tests that every driver has to pass: ``suite.DriverContract``, which a driver's own tests inherit.

``stage`` plays the host and ``jobs`` is what its agents do. ``suite`` alone needs pytest: brain-clusters[contract].
"""
