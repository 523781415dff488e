"""From C to BPF objects: clang and its include paths, vmlinux.h, and what is current already."""
