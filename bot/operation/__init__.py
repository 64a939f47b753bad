"""Running the bot: logs, metrics, health, exports."""
