"""What the end of a handed-down job means to the job that waits for it, as a part of the script that ends it."""

from __future__ import annotations

# joined(parent, child): called in the script that records the outcome of ``child``, whose options name ``parent``.
JOINED = """
local function joined(parent, child)
end
"""
