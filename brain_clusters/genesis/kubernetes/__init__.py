"""The Kubernetes driver: one pod per agent, created, watched and deleted through the API server.

``api`` speaks to the server and ``refusals`` says what its refusals mean, ``manifest`` says what a pod is made of,
``status`` what is seen of one, ``following`` keeps track of all, ``errands`` does what has to be done until it is done.
"""
