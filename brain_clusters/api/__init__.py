"""The REST API: requests become commands and queries of ``services``, rows become JSON, errors become problem+json.

The only folder that knows HTTP. No SQL, no business rule, and nothing that starts a process lives here.
"""
