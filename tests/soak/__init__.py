"""Long runs against live management: servers come, change and go for minutes while calls on others must not notice.

`python -m tests.soak --help`. Short forms of the same runs are in `tests/flows/test_soak.py`.
"""
