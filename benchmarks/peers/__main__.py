"""`python -m benchmarks.peers NAME`: a peer's producer; its module is imported as its workers import it."""

import sys
from importlib import import_module

import_module(f"benchmarks.peers.{sys.argv[1]}").main()
