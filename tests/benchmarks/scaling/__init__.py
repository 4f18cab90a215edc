"""A replay of known shapes of load against autoscalers: what each makes jobs wait, and what it costs.

``engine`` is a discrete-event simulator of one queue served by agents, ``traces`` the loads, ``scaler`` the contract
of an autoscaler. ``ours`` drives ``brain_clusters.domain.scaling`` itself; the peers are our own short versions of
their documented rules. ``measure`` makes figures and verdicts, ``report`` and ``plots`` write them down, ``run`` is
the program. Nothing here is random but by a seed, and nothing reads a clock except to say how long a run took.
"""
