"""The long form: ``python -m tests.fuzz 100000`` runs that many inputs, and says how many were of which kind."""

from __future__ import annotations

import os
import subprocess
import sys

if __name__ == "__main__":
    inputs = sys.argv[1] if len(sys.argv) > 1 else "100000"
    command = [sys.executable, "-m", "pytest", "tests/fuzz", "-s", "-q", *sys.argv[2:]]
    raise SystemExit(subprocess.run(command, env={**os.environ, "SSE_LIVE_FUZZ_INPUTS": inputs}).returncode)
