"""What the kernel does with frames: real ones sent and heard, and the tracepoints that tell of them."""
