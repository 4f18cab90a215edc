"""The dashboard: pages for people, rendered on the server from the same services as the API's answers.

Routes read, a ``shape`` module makes of rows what a template shows, and templates show it. Nothing here changes
anything: buttons call the REST API. To add a screen: a module with ``routes = screen(...)``, its template, one line in
``mount.SCREENS``, and one in ``site.NAV``.
"""

from brain_clusters.dashboard.mount import attach

__all__ = ["attach"]
