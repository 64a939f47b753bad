"""Logs, metrics, health, exports."""
