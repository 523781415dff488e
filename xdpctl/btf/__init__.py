"""BTF types: what a value's bytes mean, and how a type is written in C."""
