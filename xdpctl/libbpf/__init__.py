"""The C library libbpf, 1.0 to 1.7: prototypes, option structs, its log, and the few system calls beside it."""
