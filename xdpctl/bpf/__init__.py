"""BPF objects, programs, maps, links and pins as typed things over libbpf: no command line, no policy."""
