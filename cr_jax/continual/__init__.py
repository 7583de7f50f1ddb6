"""A bank that grows: unknown text is collected, and its domain gets an expert.  Not in the paper,
whose routing rule says only that text which every expert loses mounts a new one.

    documents -> route -> evidence -> buffer -> discovery -> training -> a mounted expert
"""
