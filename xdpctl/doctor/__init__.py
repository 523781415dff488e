"""Diagnosis: rules over snapshots, findings, fixes, and the reference of what the kernel answers."""
