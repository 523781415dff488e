"""Reproducible scenarios in throwaway namespaces: make a failure, show it, diagnose it, fix it."""
