"""links -> raw pages (paper section 2.1): what people voted for, fetched politely.

The only room that makes outbound requests.
"""
