"""One thread at a time loads models in a process: transformers and diffusers are not made for more.

transformers swaps methods of its own classes while it loads and puts back what it found; a second
thread finds what the first one put there, and then every network of the process lacks its tied
parameters. Its modules are imported when a name is first asked for, and two threads that ask at
once can be told that the name does not exist.
"""

import threading

LOADING = threading.RLock()
"""Held while a model is built or its weights are read."""
