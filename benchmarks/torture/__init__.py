"""Fault injection: what breaks, how often, and whether anything is lost, wrong or stuck afterwards."""
