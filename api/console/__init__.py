"""The console: its page, and who is logged in there. All else that it shows is /api/v1's."""
