"""Small models of rings and locks, an exact search over their interleavings, and a C program that races for real."""
