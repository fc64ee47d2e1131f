"""``manage.py sse_live_doctor``: a running site as a browser meets it, and what to change there."""
