"""Desired state against observed state: plans of changes, each with its inverse, and what executes them."""
