"""How much a stream costs: this project beside others, in one run, on one machine.

    python -m benchmarks fanout|burst|spread|neighbour|idle|connect|resume

See docs/performance.md for the method, and ``python -m benchmarks --help`` for the choices.
"""
