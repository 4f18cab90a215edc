"""The whole system as its users meet it: ``brain-clusters up`` on a home of its own, REST, Celery clients, kill -9.

Nothing is faked, and of our code only small readers of what the system leaves on disk are called here.
"""
