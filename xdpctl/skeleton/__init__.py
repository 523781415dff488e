"""A BPF object as a Python object: typed globals and maps, generated subclasses, and what changes between versions."""
